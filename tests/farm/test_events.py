"""Events: order, gaps, form and size, by long poll and by subscription."""
import time

import graphs
import msgpack
import sp
from fake import fake_node, script
from node import SLOW, Node, wait
from registry import check, test


def frames_until(s, last):
    """(topic, event, bytes) of every frame up to sequence number LAST."""
    got = []
    while not got or got[-1][1]["seq"] < last:
        frame = s.recv(10 * SLOW)
        topic, event = msgpack.unpack_stream(frame)
        got.append((topic, event, len(frame)))
    return got


@test()
def polls_and_subscriptions_agree():
    """The same events in the same order both ways; seq without gaps, item_seq 1, 2, ... per item; topics as documented."""
    with Node("[cpu:0, cpu:1]") as n:
        since = n.call("hello")["seq"]
        with sp.Connection(n.path("events"), sp.SUB) as s:
            n.completed(n.enqueue(graphs.add()))     # from here on the subscription is known to be there
            since = n.call("hello")["seq"]
            ids = n.enqueue(graphs.add(), runs=20)
            n.completed(ids)
            last = n.call("hello")["seq"]
            heard = [f for f in frames_until(s, last) if f[1]["seq"] > since]
        polled = [e for e in n.events(since) if e["seq"] <= last]
        check([e for _, e, _ in heard] == polled, "the two differ")
        check([e["seq"] for e in polled] == list(range(since + 1, last + 1)), "gaps")
        for topic, event, _ in heard:
            check(len(topic) == 32, topic)
            if "item_seq" in event:
                check(topic.startswith("ev/item/%d " % event["item_id"]), topic, event)
            else:
                check(topic.startswith(("ev/queue ", "ev/worker/", "ev/node ")), topic, event)
        for i in ids:
            mine = [e for e in polled if e.get("item_id") == i and "item_seq" in e]
            check([e["item_seq"] for e in mine] == list(range(1, len(mine) + 1)), mine)
            statuses = [e["status"] for e in mine if e["event"] == "queue_item_status_changed"]
            check(statuses == ["in_progress", "completed"], statuses)
            kinds = [e["event"] for e in mine]
            check(kinds.index("invocation_started") < kinds.index("invocation_complete"), kinds)
            started = next(e for e in mine if e["event"] == "invocation_started")
            check(started["invocation"]["type"] == "add" and started["invocation_source_id"] == "sum", started)


@test()
def events_of_a_picture_are_few_bytes():
    """At most 10 KB of events for a 20-step picture, previews apart."""
    with Node() as n:
        with sp.Connection(n.path("events"), sp.SUB) as s:
            n.completed(n.enqueue(graphs.picture(steps=1)))
            item, = n.enqueue(graphs.picture(steps=20, size=128))
            n.completed([item])
            last = n.call("hello")["seq"]
            size = sum(b for _, e, b in frames_until(s, last) if e.get("item_id") == item)
        check(0 < size <= 10000, "bytes:", size)
        steps = [e for e in n.events(item_id=item) if e["event"] == "invocation_progress" and e.get("total") == 20]
        check(steps and steps[-1]["step"] == 20, "the last step was not told:", steps[-1:])



@test()
def previews_are_pictures():
    """rgb8 at latent resolution, on a socket of their own, at most preview_rate a second."""
    with Node(preview_rate=60) as n, sp.Connection(n.path("previews"), sp.SUB) as s:
        item, = n.enqueue(graphs.picture(steps=30, size=128))
        n.completed([item])
        topic, p = msgpack.unpack_stream(s.recv(10 * SLOW))
        check(topic.startswith("pv/item/%d " % item), topic)
        check((p["item_id"], p["attempt"], p["format"], p["total"]) == (item, 1, "rgb8", 30), p)
        check((p["width"], p["height"], len(p["image"])) == (16, 16, 16 * 16 * 3), p["width"], p["height"], len(p["image"]))
    with Node(preview_rate=0) as n, sp.Connection(n.path("previews"), sp.SUB) as s:
        n.completed(n.enqueue(graphs.picture(steps=10)))
        try:
            s.recv(0.5)
            check(False, "a preview with preview_rate 0")
        except sp.Silent:
            pass


@test()
def long_polls_wait_and_wake():
    """A poll answers when an event comes, at once when there is one, and empty at its limit."""
    with fake_node() as n:
        since = n.call("hello")["seq"]
        begin = time.monotonic()
        page = n.call("events", since=since, wait_ms=300)
        check(page["events"] == [] and page["next"] == since and time.monotonic() - begin >= 0.3, page)
        with sp.Req(n.path()) as r:
            r.post(msgpack.pack({"op": "events", "args": {"since": since, "wait_ms": 30000}}))
            item, = n.enqueue(script(""))
            page = msgpack.unpack(r.answer(10 * SLOW))["result"]
        check(page["events"][0]["event"] == "batch_enqueued" and page["events"][0]["item_id_first"] == item, page["events"][0])
        n.completed([item])
        page = n.call("events", since=since, max=2)
        check(len(page["events"]) == 2 and page["next"] == page["events"][-1]["seq"], page)
        mine = n.call("events", since=since, item_id=item)["events"]
        check(mine and all(e["item_id"] == item for e in mine), mine)


@test()
def a_snapshot_and_the_events_after_it():
    """snapshot + events after its seq give the state of every item."""
    with fake_node("[cpu:0, cpu:1]") as n:
        busy = n.enqueue(script("wait=1"), runs=2)
        pending = n.enqueue(script(""), runs=4)
        wait("both to run", lambda: n.call("status")["queue"]["in_progress"] == 2)
        snap = n.call("snapshot")
        check([r["item_id"] for r in snap["items"]] == busy + pending, snap["items"])
        check(all("phase" in r and "total" in r for r in snap["items"] if r["status"] == "in_progress"), snap["items"])
        state = {r["item_id"]: r["status"] for r in snap["items"]}
        n.completed(busy + pending)
        for e in n.events(snap["seq"]):
            if e["event"] == "queue_item_status_changed":
                state[e["item_id"]] = e["status"]
        check(set(state.values()) == {"completed"}, state)


@test()
def a_value_that_does_not_fit_is_the_error_of_its_node():
    """What comes over an edge is only known at run time: the node that cannot take it is named by an invocation_error, as InvokeAI's is."""
    nodes = {"odd": {"type": "integer", "value": 63}, "noise": {"type": "noise", "seed": 1, "height": 64}}
    with Node() as n:
        item = n.enqueue(graphs.graph(nodes, "odd.value -> noise.width"))[0]
        row = n.settled([item])[item]
        errors = [e for e in n.events() if e["event"] == "invocation_error"]
        check(row["status"] == "failed" and len(errors) == 1, row, errors)
        check(errors[0]["item_id"] == item and errors[0]["invocation_source_id"] == "noise" and errors[0]["invocation"]["type"] == "noise", errors)
        check(errors[0]["error_message"] == row["error_message"] and "'noise'" in row["error_message"] and "width" in row["error_message"], errors, row)


@test()
def every_event_is_documented():
    """Each event and each field that a busy minute produces stands in docs/protocol.md."""
    import docs
    with fake_node("[cpu:0, cpu:1]", backoff_ms=10) as n:
        ids = n.enqueue(script(""), batch={"origin": "o", "destination": "d"}) + n.enqueue(script("1:exit=1")) + n.enqueue(script("fail")) + n.enqueue(script("flood=10"))
        n.settled(ids)
        n.call("retry", item_ids=[ids[2]])
        n.call("pause")
        waits = n.enqueue(script(""))
        n.call("cancel_all_except_current")
        n.call("resume")
        n.call("pause", device="cpu:0")
        n.call("resume", device="cpu:0")
        n.call("delete", item_ids=waits)
        n.call("prune")
        n.call("clear")
        documented = docs.events()
        for e in n.events():
            check(e["event"] in documented, "not documented:", e["event"])
            extra = set(e) - documented[e["event"]]
            check(not extra, e["event"], "fields that are not documented:", extra)
