"""The control socket: every frame gets one reply, and every refusal says what is wrong."""
import json
import os
import random
import re

import graphs
import msgpack
import sp
from node import SLOW, Node, wait
from registry import check, test

ROOT = os.path.dirname(os.path.abspath(__file__)) + "/../.."


def commands_def():
    """(names with a handler, names for later) of proto/commands.def."""
    text = open(ROOT + "/proto/commands.def").read()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return re.findall(r"^COMMAND\((\w+)", text, re.M), re.findall(r"^LATER\((\w+)", text, re.M)


def refusal(reply):
    """The error of a reply in either form; None when it is ok."""
    reply = json.loads(reply) if reply[:1] == b"{" else msgpack.unpack(reply)
    check(set(reply) == ({"ok", "result"} if reply["ok"] else {"ok", "error"}), reply)
    return None if reply["ok"] else reply["error"]


@test()
def every_command_is_there_or_says_not_yet():
    """help lists commands.def; each op of it answers, those for later with not_available."""
    now, later = commands_def()
    with Node() as n:
        table = {c["op"]: c for c in n.call("help")["commands"]}
        check(sorted(table) == sorted(now + later), set(table) ^ set(now + later))
        for op in later:
            e = n.refused(op)
            check(e.code == "not_available" and op in e.message, op, e)
            check(not table[op]["available"], op)
        for op in now:
            for a in table[op]["args"]:
                check(a["help"] and a["type"], op, a)
                if a["available"]:
                    continue
                e = n.refused(op, **{a["name"]: "x"})
                check(e.code == "not_available" and a["name"] in e.message, op, a["name"], e)
        for op in ("hello", "status", "help", "metrics", "items", "current", "next", "workers", "models", "images", "events", "snapshot"):
            check(isinstance(n.call(op), dict), op)


@test()
def both_forms_say_the_same():
    """A JSON request gets JSON, a MessagePack one MessagePack; nothing else differs."""
    with Node() as n:
        for op in ("hello", "help", "models", "items"):
            packed = msgpack.unpack(n.raw(msgpack.pack({"op": op})))
            text = json.loads(n.raw(json.dumps({"op": op}).encode()))
            for reply in (packed, text):
                reply["result"].pop("seq", None)
            check(packed == text, op)
        item, = n.enqueue(graphs.picture(steps=1))
        n.completed([item])
        name = n.pictures(item)[0]["image_name"]
        import base64
        text = json.loads(n.raw(json.dumps({"op": "image_get", "args": {"image_name": name}}).encode()))
        check(base64.b64decode(text["result"]["bytes"]) == n.call("image_get", image_name=name)["bytes"])


@test()
def refusals_name_what_is_wrong():
    """Each bad request: its code, and what its message must contain."""
    rows = [
        ({"op": "statsu"}, "unknown_op", ["statsu", "status"]),
        ({"op": "items", "args": {"limti": 3}}, "bad_argument", ["limti", "limit"]),
        ({"op": "items", "args": {"limit": "3"}}, "bad_argument", ["limit", "integer"]),
        ({"op": "items", "args": {"limit": 0}}, "bad_argument", ["limit", "1", "1000"]),
        ({"op": "items", "args": {"limit": 1e300}}, "bad_argument", ["limit"]),
        ({"op": "item"}, "bad_argument", ["item_id", "missing"]),
        ({"op": "item", "args": {"item_id": 5}}, "not_found", ["5"]),
        ({"op": "item", "args": {"item_id": True}}, "bad_argument", ["item_id"]),
        ({"op": "retry", "args": {"item_ids": [1, "2"]}}, "bad_argument", ["item_ids"]),
        ({"op": "retry", "args": {"item_ids": []}}, "bad_argument", ["item_ids"]),
        ({"op": "enqueue", "args": {"batch": []}}, "bad_argument", ["batch", "object"]),
        ({"op": "enqueue", "args": {"batch": {}}}, None, ["graph"]),
        ({"op": "enqueue", "args": {"batch": {"graph": {}}, "key": ""}}, "bad_argument", ["key"]),
        ({"op": "enqueue", "args": {"batch": {"graph": {}}, "key": "k" * 201}}, "bad_argument", ["key", "201", "200"]),
        ({"op": "batch", "args": {"batch_id": "none"}}, "not_found", ["none"]),
        ({"op": "worker_restart", "args": {"device": "cpu:9"}}, None, ["cpu:9"]),
        ({"op": "events", "args": {"wait_ms": 30001}}, "bad_argument", ["wait_ms", "30000"]),
        ({"op": "status", "token": "secret"}, "not_available", ["token"]),
        ({"op": "status", "v": 2}, "bad_request", ["1"]),
        ({"op": "status", "arsg": {}}, "bad_request", ["arsg"]),
        ({"op": "status", "args": []}, "bad_request", ["args"]),
        ({"op": 5}, "bad_request", ["op"]),
        ({}, "bad_request", ["op"]),
    ]
    with Node() as n:
        for request, code, words in rows:
            for body in (json.dumps(request).encode(), msgpack.pack(request)):
                e = refusal(n.raw(body))
                check(e and (code is None or e["code"] == code) and all(w in e["message"] for w in words), request, e)


@test()
def every_frame_gets_a_reply():
    """Empty, cut, wrong and random frames: one reply each, and it is an error."""
    whole = msgpack.pack({"op": "status", "args": {"x": [1, 2.5, None, True, "text", b"bytes"]}})
    frames = [b"", b"\0", b"{", b"[1,2]", b'"text"', b"{}" + b"x", b'{"op":"status"} trailing', b'{"op":"st\xff"}', b'{"op":"a\\u0000b"}', b"\xc1", b"\xdd\xff\xff\xff\xff",
              b"\xdf\xff\xff\xff\xff\xdf\xff\xff\xff\xff", b"\x91" * 300, b"[" * 300, b'{"a":' * 300, b"\x81\xa2op\xa2\xff\xfe", b"\xca\x7f\xc0\0\0", msgpack.pack({"op": float("nan")}),
              b"GET / HTTP/1.1\r\n\r\n"]
    frames += [whole[:i] for i in range(1, len(whole))]
    rng = random.Random(4)
    frames += [bytes(rng.randrange(256) for _ in range(rng.randrange(1, 60))) for _ in range(300)]
    for i in range(200):
        broken = bytearray(whole)
        broken[rng.randrange(len(broken))] = rng.randrange(256)
        frames.append(bytes(broken))
    with Node() as n, sp.Req(n.path()) as r:
        for frame in frames:
            check(refusal(r.ask(frame)) is not None, "accepted:", frame)
        check(refusal(r.ask(b'{"op":"status"}')) is None)


@test()
def requests_up_to_16_mib_are_served():
    """A frame of exactly the limit gets a reply; a longer one loses its connection, and only that."""
    limit = 16 << 20
    with Node() as n:
        padding = b'{"op":"status","args":{"x":"' + b"y" * (limit - 31) + b'"}}'
        check(len(padding) == limit)
        with sp.Req(n.path(), 30) as r:
            check(refusal(r.ask(padding, 30 * SLOW))["code"] == "bad_argument")
        with sp.Req(n.path(), 30) as r:
            r.socket.settimeout(30 * SLOW)
            try:
                r.post(b"{" + b" " * (limit + (2 << 20)))
            except sp.Gone:
                pass
            check(r.closed(30 * SLOW), "the connection of a request that is too long stays open")
        check(n.call("status"))


@test()
def polls_do_not_starve_commands():
    """300 long polls at once: half of them wait, the others are answered at once, and commands go on."""
    with Node() as n:
        since = n.call("hello")["seq"]
        body = msgpack.pack({"op": "events", "args": {"since": since, "wait_ms": 20000}})
        polls = []
        try:
            for _ in range(220):
                r = sp.Req(n.path())
                r.post(body)
                polls.append(r)
            wait("waiting polls", lambda: "galley_polls_waiting 160" in n.call("metrics")["text"])
            ids = n.enqueue(graphs.add())
            n.completed(ids)
            for r in polls:
                reply = msgpack.unpack(r.answer(10 * SLOW))
                check(reply["ok"], reply)
        finally:
            for r in polls:
                r.close()


@test()
def metrics_are_prometheus_text():
    """Each sample line has a name and a number, each family its HELP and TYPE."""
    with Node() as n:
        n.completed(n.enqueue(graphs.add(), runs=3))
        text = n.call("metrics")["text"]
        for line in text.splitlines():
            check(line.startswith("# ") or re.fullmatch(r"galley_\w+(\{[^}]*\})? [-+0-9.e]+", line), line)
        check('galley_items{state="completed"} 3' in text, text)
        names = {m for m in re.findall(r"^(galley_\w+)", text, re.M)}
        check(all("# TYPE %s " % x in text and "# HELP %s " % x in text for x in names), names)
