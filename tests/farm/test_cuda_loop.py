"""What the denoise loop asks of the driver, and what becomes of models and items when a GPU's memory is short; on simulated devices."""
import json
import os
import struct
import tempfile

import graphs
from node import wait
from registry import check, test
from test_cuda import CudaNode, picture

MEGA = 1 << 20
SHIPPED = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "models/emoji")
SCRATCH = 9 * MEGA          # what the backend has beside models, generously


class RigNode(CudaNode):
    """A node with one simulated GPU of MEMORY bytes that counts the calls of each process."""

    def __init__(self, memory=0, **config):
        self.counts = tempfile.mkdtemp(prefix="c", dir=os.environ["FARM_ROOT"])
        self.more = {"VGPU_COUNT": self.counts + "/%p", **({"VGPU_MEMORY": str(memory)} if memory else {})}
        super().__init__("[cuda:0]", 1, **config)

    def environment(self):
        return dict(super().environment(), **self.more)

    def calls(self, scope):
        """{call: how often} of the worker, in SCOPE of tests/vgpu/faults.c."""
        with open("%s/%d" % (self.counts, self.worker()["pid"])) as f:
            rows = [line.split() for line in f]
        return {name: int(count) for s, name, count in rows if s == scope}

    def used(self, more_than=0):
        """Device memory that the worker reports, once it is MORE_THAN that."""
        return wait("a report of the device's memory", lambda: next((b for b in [self.worker()["device_bytes"]] if b > more_than), 0))

    def holds(self, keys):
        """Waits until the models on the device are KEYS, a letter each."""
        wait("the models " + keys, lambda: sorted(self.worker()["models"]) == list(keys), 5)


def one_prompt(**how):
    """A picture whose text encoder runs once: then nothing but the denoise loop launches a graph twice."""
    g = graphs.picture(**how)
    del g["nodes"]["negative"]
    g["edges"] = [e for e in g["edges"] if e["destination"]["node_id"] != "negative"]
    for e in g["edges"]:
        if e["source"]["node_id"] == "negative":
            e["source"]["node_id"] = "prompt"
    return g


@test(limit=120)
def cuda_loop_only_enqueues():
    """From step to step: a graph, three ops and more for what the sampler adds, two copies; no allocation, no look-up; one wait per step, for its progress."""
    for scheduler, steps, network_calls, draws in (("ddim", 8, 8, 0), ("heun", 8, 15, 0), ("euler_a", 8, 8, 7)):
        with RigNode(preview_rate=0) as n:
            n.completed(n.enqueue(one_prompt(steps=steps, scheduler=scheduler)))
            loop, all_calls = n.calls("between_graph_launches"), n.calls("calls")
        again = network_calls - 1       # launches that follow another one
        kernels = loop.pop("cuLaunchKernel", 0)
        expected = {"cuGraphLaunch": again, "cuMemcpyDtoDAsync": 2 * again, "cuStreamSynchronize": steps - 1}
        if draws:
            expected.update(cuMemcpyHtoDAsync=draws, cuEventRecord=draws)
        check(loop == expected, scheduler, loop)
        check(3 * again <= kernels <= 8 * again, scheduler, kernels)
        # Text encoder, projections of the timesteps, keys and values of the prompt, decoder: each is a graph that runs once.
        check(all_calls["cuGraphLaunch"] == network_calls + 4 and all_calls["cuGraphInstantiateWithFlags"] == 5, scheduler, all_calls)


@test(limit=60)
def cuda_loop_reads_previews_back():
    """A step with a preview waits for that instead: still one wait per step."""
    steps = 12
    with RigNode(preview_rate=60) as n:
        n.completed(n.enqueue(one_prompt(steps=steps)))
        loop = n.calls("between_graph_launches")
    previews = loop["cuMemcpyDtoHAsync"]
    check(previews >= 1 and loop["cuEventSynchronize"] == loop["cuEventRecord"] == previews, loop)
    check(loop.get("cuStreamSynchronize", 0) + previews == steps - 1, loop)
    check(not [c for c in loop if "Alloc" in c or "Free" in c or "Module" in c or c.startswith(("cublasLt", "cudnn"))], loop)


def copies(*keys):
    """A models_dir with the shipped model under each of KEYS."""
    folder = tempfile.mkdtemp(prefix="m", dir=os.environ["FARM_ROOT"])
    for key in keys:
        os.symlink(SHIPPED, "%s/%s" % (folder, key))
    return folder


def large_copy(folder, key, rows):
    """The shipped model with ROWS words in the table of its text encoder; the file has a hole for those that nobody says."""
    encoder = "%s/%s/text_encoder" % (folder, key)
    os.makedirs(encoder)
    for name in os.listdir(SHIPPED):
        if name != "text_encoder":
            os.symlink("%s/%s" % (SHIPPED, name), "%s/%s/%s" % (folder, key, name))
    with open(SHIPPED + "/text_encoder/config.json") as f:
        config = dict(json.load(f), vocab_size=rows)
    with open(encoder + "/config.json", "w") as f:
        json.dump(config, f)
    with open(SHIPPED + "/text_encoder/model.safetensors", "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        tensors, data = json.loads(f.read(size)), f.read()
    tensors.pop("__metadata__", None)
    header, parts, at = {}, [], 0
    for name in sorted(tensors, key=lambda t: (t.endswith("token_embedding.weight"), t)):
        t = tensors[name]
        part = data[slice(*t["data_offsets"])]
        if name.endswith("token_embedding.weight"):
            full = len(part) // t["shape"][0] * rows
            t = dict(t, shape=[rows, t["shape"][1]])
        else:
            full = len(part)
        header[name] = dict(t, data_offsets=[at, at + full])
        parts.append(part)
        at += full
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(encoder + "/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
        f.truncate(8 + len(text) + at)


def of(key, **how):
    return graphs.picture(**dict({"steps": 2, "model": {"key": key, "hash": "", "name": key, "base": "sd-1", "type": "main"}}, **how))


def sizes(folder):
    """Bytes on the device after one model, and what a second one adds."""
    with RigNode(models_dir=folder, max_cache_ram_gb=16) as n:
        n.completed(n.enqueue(of("a")))
        one = n.used()
        n.completed(n.enqueue(of("b")))
        return one, n.used(one) - one


def device_with(room):
    """Memory of a device that has ROOM bytes for models and plans: a 64th stays free."""
    return (room + SCRATCH) * 64 // 63


@test(limit=120)
def cuda_models_take_turns():
    """Three models on a device that holds two: all render, the least recently used one goes, nobody fails, the worker stays."""
    folder = copies("a", "b", "c")
    one, more = sizes(folder)
    memory = device_with(one + more + more // 2)
    with RigNode(memory, models_dir=folder, max_cache_ram_gb=16) as n:
        pid, seen = n.worker()["pid"], []
        for key, stay in (("a", "a"), ("b", "ab"), ("c", "bc"), ("a", "ac"), ("c", "ac"), ("b", "bc")):
            item, = n.enqueue(of(key))
            row = n.completed([item])[item]
            check(row["attempt"] == 1, row)
            seen.append(picture(n, item))
            n.holds(stay)
            check(n.used() <= memory and n.worker()["pid"] == pid, n.worker())
        check(all(p == seen[0] for p in seen), "the same model made different pictures")


@test(limit=120)
def cuda_models_under_a_cap():
    """max_cache_ram_gb is for the device's memory too, where that would hold more."""
    folder = copies("a", "b")
    one, more = sizes(folder)
    cap = one + more // 2
    with RigNode(models_dir=folder, max_cache_ram_gb=cap / (1 << 30)) as n:
        for key in ("a", "b", "a"):
            n.completed(n.enqueue(of(key)))
            n.holds(key)
            check(0 < n.used() <= cap, n.worker(), cap)


@test(limit=120)
def cuda_too_large_a_picture():
    """A picture that can never fit fails at once, with needed and free; models stay, and so does the worker, for the next item."""
    folder = copies("a", "b")
    one, more = sizes(folder)
    with RigNode(device_with(one + more + more // 2), models_dir=folder, max_cache_ram_gb=16) as n:
        n.completed(n.enqueue(of("a")) + n.enqueue(of("b")))
        before = n.worker()
        item, = n.enqueue(of("b", size=2048))
        after = n.enqueue(of("a"))
        row = n.settled([item])[item]
        check(row["status"] == "failed" and row["attempt"] == 1 and row["error_type"] == "out_of_memory", row)
        check("bytes needed" in row["error_message"] and " free" in row["error_message"] and "denoise" in row["error_message"], row)
        n.completed(after)
        n.holds("ab")
        now = n.worker()
        check(now["pid"] == before["pid"] and now["launch"] == before["launch"], now)


@test(limit=120)
def cuda_too_large_a_model():
    """A switch to a model that can never fit fails before it loads anything, with needed and free; what is there stays, and works."""
    folder = copies("a")
    large_copy(folder, "z", 400000)
    with RigNode(128 * MEGA, models_dir=folder) as n:
        pid = n.worker()["pid"]
        n.completed(n.enqueue(of("a")))
        used = n.used()
        z = n.enqueue(of("z"), runs=2)
        a = n.enqueue(of("a"))
        for row in n.settled(z).values():
            check(row["status"] == "failed" and row["attempt"] == 1 and row["error_type"] == "out_of_memory", row)
            check("bytes needed" in row["error_message"] and " free" in row["error_message"] and "prompt" in row["error_message"], row)
        n.completed(a)
        n.holds("az")
        check(n.worker()["pid"] == pid and n.used() == used, n.worker(), used)


@test(limit=120)
def cuda_failed_switches():
    """A damaged model fails alone; an allocation that fails in the middle of a switch, against the figures, frees what is idle and goes on."""
    folder = copies("a", "b")
    large_copy(folder, "z", 400)        # fewer words than the tokenizer has
    with RigNode(models_dir=folder, faults="0:memory:700:oom") as n:
        pid = n.worker()["pid"]
        a, z, b, a_again = (n.enqueue(of(key))[0] for key in "azba")
        rows = n.settled([a, z, b, a_again])
        check(rows[z]["status"] == "failed" and rows[z]["error_type"] == "bad_model", rows[z])
        check(all(rows[i]["status"] == "completed" and rows[i]["attempt"] == 1 for i in (a, b, a_again)), rows)
        check(n.calls("faults"), "the fault did not strike")
        check(picture(n, a) == picture(n, b) == picture(n, a_again), "the same model made different pictures")
        n.holds("ab")
        check(n.worker()["pid"] == pid, n.worker())
