"""CUDA devices, simulated: build/PRESET/vgpu in LD_LIBRARY_PATH is the whole difference. Skipped where the build has no CUDA module."""
import os
import signal
import struct
import subprocess
import tempfile
import zlib

import graphs
from node import BIN, Node, wait
from registry import Skip, check, test

RIG = os.path.join(os.path.dirname(BIN), "vgpu")
MODULE = os.path.join(os.path.dirname(BIN), "lib/galley/galley-cuda.so")


class CudaNode(Node):
    """A node on a machine with GPUS simulated devices, and FAULTS as tests/vgpu/faults.c reads them."""

    def __init__(self, devices, gpus, faults="", **config):
        if not os.path.exists(MODULE) or not os.path.exists(RIG + "/libcuda.so.1"):
            raise Skip("this build has no CUDA module (no toolkit was found when it was configured)")
        self.rig = {"LD_LIBRARY_PATH": RIG, "VGPU_DEVICES": str(gpus)} if gpus else {}
        if faults:
            self.rig.update(VGPU_FAULTS=faults, VGPU_STATE=tempfile.mkdtemp(prefix="v", dir=os.environ["FARM_ROOT"]))
        super().__init__(devices, **config)

    def environment(self):
        return dict(super().environment(), **self.rig)


def pixels(path):
    """(width, height, rows of RGB bytes) of a PNG of ours: 8 bit, RGB, not interlaced."""
    with open(path, "rb") as f:
        data = f.read()
    at, packed, size = 8, b"", (0, 0)
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            size = struct.unpack(">II", data[at + 8:at + 16])
        elif kind == b"IDAT":
            packed += data[at + 8:at + 8 + n]
        at += 12 + n
    raw, out, above = zlib.decompress(packed), bytearray(), bytes(3 * size[0])
    for y in range(size[1]):
        begin = y * (3 * size[0] + 1)
        row = bytearray(raw[begin + 1:begin + 1 + 3 * size[0]])
        for x in range(len(row)):
            a, b, c = row[x - 3] if x >= 3 else 0, above[x], above[x - 3] if x >= 3 else 0
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row[x] = (row[x] + (0, a, b, (a + b) // 2, nearest)[raw[begin]]) & 255
        out += row
        above = row
    return bytes(out)


def picture(n, item):
    return pixels("%s/outputs/images/%s" % (n.home, n.pictures(item)[0]["image_name"]))


def squared_error(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b)) / len(a)


@test(limit=180)
def cuda_auto():
    """auto on four GPUs: four workers, each sees its own alone, each gets work."""
    with CudaNode("auto", 4) as n:
        rows = n.workers()
        check([w["device"] for w in rows] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"], rows)
        check(len({w["pid"] for w in rows}) == len({w["uuid"] for w in rows}) == 4, rows)
        for w in rows:
            with open("/proc/%d/environ" % w["pid"], "rb") as f:
                check(b"CUDA_VISIBLE_DEVICES=%s" % w["uuid"].encode() in f.read().split(b"\0"), w)
        done = n.completed(n.enqueue(graphs.picture(steps=3), runs=16), 150)
        check({r["device"] for r in done.values()} == {w["device"] for w in rows}, [r["device"] for r in done.values()])


@test(limit=120)
def cuda_device_lists():
    """Names, UUIDs, duplicates, a mix with the CPU, none; what is not there is refused with the names that are."""
    with CudaNode("auto", 3) as n:
        uuids = [w["uuid"] for w in n.workers()]
    check(len(set(uuids)) == 3 and all(u.startswith("GPU-") for u in uuids), uuids)
    for given, expected in (("[cuda:0, cuda:2]", ["cuda:0", "cuda:2"]), ("[cuda:2, cuda:0, cuda:2]", ["cuda:2", "cuda:0"]), ("[cuda]", ["cuda:0"]), ("cuda", ["cuda:0"]),
                            ("[cuda:1, cpu]", ["cuda:1", "cpu"]), ("[cpu:0]", ["cpu:0"]), ("[]", ["cuda:0"]), ("[%s, cuda:1]" % uuids[1], ["cuda:1"]),
                            ("[%s, cuda]" % uuids[2], ["cuda:2", "cuda:0"])):
        with CudaNode(given, 3) as n:
            names = [w["device"] for w in n.workers()]
            check(names == expected, given, names)
    for given in ("[cuda:9]", "[cpu:0, cuda:3]", "[GPU-00]", "[mps]", "[cuda:x]"):
        code, log = CudaNode(given, 3, start=False).run_to_end()
        check(code == 2 and "cuda:0 to cuda:2" in log, given, code, log)
    with CudaNode("auto", 0) as n:
        check([w["device"] for w in n.workers()] == ["cpu"], n.workers())


@test(limit=60)
def cuda_devices_that_are_too_old():
    """What the kernels were not made for is left alone by auto, and refused by name."""
    os.environ["VGPU_CAPABILITY"] = "75,90"
    for given in ("auto", "[cuda]", "[]"):
        with CudaNode(given, 2) as n:
            check([w["device"] for w in n.workers()] == ["cuda:1"], given, n.workers())
    code, log = CudaNode("[cuda:0]", 2, start=False).run_to_end()
    check(code == 2 and "below 8.0" in log and "cuda:1 (or its UUID)" in log, code, log)
    os.environ["VGPU_CAPABILITY"] = "75"
    with CudaNode("auto", 1) as n:
        check([w["device"] for w in n.workers()] == ["cpu"], n.workers())


@test(limit=180)
def cuda_picture():
    """The same picture as the CPU's, in float32 and in the default float16, and the same bytes each time."""
    graph = graphs.picture(prompt="green heart", seed=7, steps=6)
    with Node("[cpu:0]") as n:
        item = n.enqueue(graph)[0]
        n.completed([item])
        expected = picture(n, item)
    for config, limit in (({"precision": "float32"}, 2.1), ({}, 65)):      # squared errors of 45 and 30 dB
        with CudaNode("[cuda:0]", 1, **config) as n:
            ids = n.enqueue(graph, runs=2)
            n.completed(ids, 150)
            a, b = (picture(n, i) for i in ids)
            check(a == b, "two runs differ")
            check(squared_error(a, expected) <= limit, config, squared_error(a, expected))


@test(limit=180)
def cuda_worker_is_killed():
    """One device's worker is killed over and over: the others stay, nothing is lost."""
    with CudaNode("auto", 3) as n:
        pids = {w["device"]: w["pid"] for w in n.workers()}
        ids = n.enqueue(graphs.picture(steps=8), runs=12)
        killed = set()

        def kill_busy():
            for w in n.workers():
                if w["device"] == "cuda:1" and w["state"] == "busy" and w["pid"] not in killed:
                    os.kill(w["pid"], signal.SIGKILL)
                    killed.add(w["pid"])
            queue = n.call("status")["queue"]
            return len(killed) >= 3 or queue["pending"] + queue["in_progress"] == 0
        wait("three kills", kill_busy, 60)
        n.completed(ids, 150)
        now = {w["device"]: w for w in n.workers()}
        check(killed and all(now[d]["pid"] == pids[d] for d in ("cuda:0", "cuda:2")), now)
        check(now["cuda:1"]["state"] in ("ready", "starting", "backoff") or now["cuda:1"]["reason"], now["cuda:1"])


@test(limit=120)
def cuda_sticky_error():
    """A fault of a kernel: the item is blamed as for a crash and done by a new process on the same device."""
    with CudaNode("[cuda:0]", 1, faults="0:cuLaunchKernel:9:sticky") as n:
        pid = n.worker()["pid"]
        item = n.enqueue(graphs.picture(steps=2))[0]
        row = n.completed([item], 90)[item]
        check(row["attempt"] == 2 and n.worker()["pid"] != pid, row, n.worker())
        check("exited with 5" in n.log() and "ILLEGAL_ADDRESS" in n.log(), n.tail())


@test(limit=120)
def cuda_lost_device():
    """A device is lost: it is quarantined, and the others do its work."""
    with CudaNode("auto", 2, faults="1:cuLaunchKernel:9:lost") as n:
        n.completed(n.enqueue(graphs.picture(steps=2), runs=6), 90)
        lost = wait("the quarantine", lambda: next((w for w in n.workers() if w["device"] == "cuda:1" and w["state"] == "quarantined"), None))
        check("device lost" in lost["reason"], lost)
        check(n.worker(0)["state"] in ("ready", "busy"), n.worker(0))


@test(limit=120)
def cuda_out_of_memory():
    """Too little device memory: the item fails after a second try on a new process, with the figures; the node goes on."""
    with CudaNode("[cuda:0]", 1, faults="0:memory:6+:oom") as n:
        item = n.enqueue(graphs.picture(steps=2))[0]
        row = n.settled([item], 90)[item]
        check(row["status"] == "failed" and row["error_type"] == "out_of_memory" and "bytes needed" in row["error_message"], row)
        n.completed(n.enqueue(graphs.add()))


@test(limit=120, short=False)
def cuda_driver_hangs():
    """A driver that does not answer takes the GPUs away, not the node."""
    with CudaNode("auto", 1, faults="*:cuInit:1+:hang", start=False) as n:
        n.spawn()
        wait("a node that answers", lambda: n.answers(True), 60)
        check([w["device"] for w in n.workers()] == ["cpu"] and "search for GPUs failed" in n.log(), n.workers(), n.tail())
        n.completed(n.enqueue(graphs.add()))


@test(limit=60)
def cuda_doctor():
    """galley doctor names the devices, or why there is none."""
    for gpus, word in ((2, "cuda:1"), (0, "driver")):
        n = CudaNode("auto", gpus, start=False)
        said = subprocess.run([BIN + "/galley", "doctor"], env=n.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60).stdout.lower()
        check(word in said and "cuda module" in said, word, said)


@test(limit=180, short=False)
def cuda_first_run():
    """The first run on a GPU is one command; on simulated ones it must run through."""
    n = CudaNode("auto", 2, start=False)
    report = n.home + "/report.md"
    for only in ("speed", "out of memory"):
        command = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "../bench/gpu"), "--build", os.path.dirname(BIN), "--report", report, "--only", only]
        done = subprocess.run(command, env=dict(os.environ, **n.rig), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=80)
        with open(report) as f:
            text = f.read()
        check(done.returncode == 0 and "simulated" in text and "| ok |" in text and only in text, only, done.returncode, done.stderr, text[-2000:])
