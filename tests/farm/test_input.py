"""Bad input, row by row: refused at enqueue with words that help, or the item's own failure; never the node's."""
import os
import shutil

import graphs
from node import Node, Refused, wait
from registry import check, test


def edge(a, b):
    return {"source": dict(zip(("node_id", "field"), a.split("."))), "destination": dict(zip(("node_id", "field"), b.split(".")))}


def node(**fields):
    return {"nodes": {"n": dict({"id": "n"}, **fields)}, "edges": []}


CYCLE = {"nodes": {k: {"id": k, "type": "add"} for k in "ab"}, "edges": [edge("a.value", "b.a"), edge("b.value", "a.a")]}
MISMATCH = {"nodes": {"s": {"id": "s", "type": "string", "value": "x"}, "a": {"id": "a", "type": "add"}}, "edges": [edge("s.value", "a.a")]}
NOWHERE = {"nodes": {"a": {"id": "a", "type": "add"}}, "edges": [edge("ghost.value", "a.a")]}
BAD_FIELD = {"nodes": {"a": {"id": "a", "type": "add"}, "b": {"id": "b", "type": "add"}}, "edges": [edge("a.vlaue", "b.a")]}
ABSENT_MODEL = {"key": "nothing", "hash": "", "name": "none-of-mine", "base": "sd-1", "type": "main"}

ROWS = [
    ("unknown node type", {"graph": node(type="addd")}, ["bad_graph"], ["n", "addd"]),
    ("no type", {"graph": node()}, ["bad_graph"], ["n", "type"]),
    ("cycle", {"graph": CYCLE}, ["bad_graph"], []),
    ("type mismatch", {"graph": MISMATCH}, ["bad_graph"], ["s", "a"]),
    ("edge from nowhere", {"graph": NOWHERE}, ["bad_graph"], ["ghost"]),
    ("edge from an unknown field", {"graph": BAD_FIELD}, ["bad_graph"], ["vlaue"]),
    ("wrong value", {"graph": node(type="add", a="many")}, ["bad_graph"], ["n", "a"]),
    ("out of range", {"graph": node(type="noise", width=-8)}, ["bad_graph"], ["n", "width"]),
    ("missing value", {"graph": node(type="l2i")}, ["bad_graph"], ["n"]),
    ("id differs from its key", {"graph": {"nodes": {"n": {"id": "m", "type": "add"}}, "edges": []}}, ["bad_graph"], ["m"]),
    ("nodes is a list", {"graph": {"nodes": [], "edges": []}}, ["bad_graph", "bad_batch"], ["nodes"]),
    ("no graph", {}, ["bad_batch", "bad_graph"], ["graph"]),
    ("runs 0", {"graph": graphs.add(), "runs": 0}, ["bad_batch"], ["runs"]),
    ("runs past the limit", {"graph": graphs.add(), "runs": 10 ** 12}, ["bad_batch", "too_large", "queue_full"], []),
    ("unequal zip", {"graph": graphs.add(), "data": [[{"node_path": "sum", "field_name": "a", "items": [1, 2]}, {"node_path": "sum", "field_name": "b", "items": [1]}]]}, ["bad_batch"], []),
    ("data of an unknown node", {"graph": graphs.add(), "data": [[{"node_path": "ghost", "field_name": "a", "items": [1]}]]}, ["bad_batch"], ["ghost"]),
    ("data of an unknown field", {"graph": graphs.add(), "data": [[{"node_path": "sum", "field_name": "z", "items": [1]}]]}, ["bad_batch"], ["z"]),
    ("mixed data", {"graph": graphs.add(), "data": [[{"node_path": "sum", "field_name": "a", "items": [1, "x"]}]]}, ["bad_batch"], []),
    ("a product past the limit", {"graph": graphs.graph({k: {"type": "add"} for k in "abcdefgh"}),
                                  "data": [[{"node_path": k, "field_name": "a", "items": list(range(1000))}] for k in "abcdefgh"]}, ["bad_batch", "too_large", "queue_full"], []),
    ("missing model", {"graph": graphs.picture(model=ABSENT_MODEL)}, ["no_model"], ["none-of-mine"]),
    ("a scheduler that is none", {"graph": graphs.picture(scheduler="unipcc")}, ["bad_graph"], ["unipcc"]),
    ("a node for later", {"graph": node(type="lora_loader")}, ["bad_graph", "not_available", "unsupported"], ["lora_loader"]),
    ("long batch id", {"graph": graphs.add(), "batch_id": "b" * 5000}, ["bad_batch"], ["batch_id"]),
]


@test()
def bad_batches_are_refused_whole():
    """Each row: one of the codes, and a message with these words; nothing is stored."""
    with Node() as n:
        for name, batch, codes, words in ROWS:
            try:
                result = n.call("enqueue", batch=batch)
            except Refused as e:
                check(e.code in codes and all(w in e.message for w in words), name, e)
                continue
            check(False, name, "was accepted:", result)
        check(n.items() == [] and n.call("status")["ready"], n.items())


@test()
def texts_of_every_kind_come_through():
    """Prompts and names with odd characters do not harm anything; paths in ids do not leave the outputs folder."""
    texts = ["", " ", "\t\n", "((((", "))))", "+++---", "a" * 3000, "\u200b\ud7ff\ue000\U0010ffff", "'; drop table items; --", "../../../etc/passwd", "%s%n%x", "<script>", "(a:1e999)", "\u0301" * 300]
    with Node() as n:
        ids = n.enqueue(graphs.picture(steps=1), data=[[{"node_path": "prompt", "field_name": "prompt", "items": texts}]])
        rows = n.settled(ids)
        check(all(r["status"] in ("completed", "failed") for r in rows.values()))
        check(sum(r["status"] == "completed" for r in rows.values()) >= 10, [(texts[i - ids[0]][:20], r["error_message"]) for i, r in rows.items() if r["status"] == "failed"])
        check(all(r["attempt"] == 1 for r in rows.values()), "a text ended a worker", rows)
        climbing = graphs.graph({"../../x": {"type": "add", "a": 1, "b": 2}})
        try:
            n.completed(n.enqueue(climbing))
        except Refused as e:
            check(e.code == "bad_graph", e)
        check(not os.path.exists(os.path.dirname(n.home) + "/x"))


@test()
def big_graphs():
    """A chain of 5,000 nodes runs or is refused by name; 40,000 nodes too."""
    with Node() as n:
        for size in (5000, 40000):
            nodes = {"n%d" % i: {"id": "n%d" % i, "type": "add", "a": 1, "b": 1} for i in range(size)}
            edges = [edge("n%d.value" % i, "n%d.a" % (i + 1)) for i in range(size - 1)]
            try:
                item, = n.call("enqueue", within=40, batch={"graph": {"nodes": nodes, "edges": edges}})["item_ids"]
                n.call("cancel", item_id=item)
                check(n.settled([item])[item]["attempt"] <= 1, "the graph ended a worker")
            except Refused as e:
                check(e.code in ("too_large", "bad_graph"), e)
            check(n.call("status")["ready"])


def model_source():
    here = os.path.dirname(os.path.abspath(__file__))
    return os.path.abspath(here + "/../../models/emoji")


def weights_of(folder):
    return sorted(os.path.join(d, f) for d, _, files in os.walk(folder) for f in files if f.endswith(".safetensors"))


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def empty(path):
    os.truncate(path, 0)


def huge_header(path):
    with open(path, "r+b") as f:
        f.write(b"\xff" * 8)


def no_json(path):
    with open(path, "r+b") as f:
        f.seek(8)
        f.write(b"not json")


def offsets_outside(path):
    """Every tensor claims to lie past the end of the file."""
    import json
    with open(path, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(size))
        rest = f.read()
    for name, tensor in header.items():
        if name != "__metadata__":
            tensor["data_offsets"] = [x + (1 << 40) for x in tensor["data_offsets"]]
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + rest)


@test(limit=120)
def damaged_models():
    """A model whose files are damaged is refused or fails its items with a name; the worker lives on for others."""
    damages = [cut, empty, huge_header, no_json, offsets_outside, os.unlink]
    with Node(start=False) as n:
        models = n.home + "/models"
        for damage in damages:
            folder = "%s/%s" % (models, damage.__name__)
            shutil.copytree(model_source(), folder)
            damage(weights_of(folder)[-1])
        n.config["models_dir"] = models
        n.start()
        pid = n.worker()["pid"]
        for damage in damages:
            reference = {"key": "", "hash": "", "name": damage.__name__, "base": "sd-1", "type": "main"}
            try:
                item, = n.enqueue(graphs.picture(steps=1, model=reference))
            except Refused as e:
                check(e.code in ("no_model", "bad_model", "corrupt"), damage.__name__, e)
                continue
            row = n.settled([item])[item]
            check(row["status"] == "failed" and row["attempt"] == 1, damage.__name__, row)
            check(row["error_type"] in ("bad_model", "corrupt", "not_found", "io_error"), damage.__name__, row["error_type"], row["error_message"])
        check(n.worker()["pid"] == pid, "a damaged model ended the worker")
        n.completed(n.enqueue(graphs.picture(steps=1)))
