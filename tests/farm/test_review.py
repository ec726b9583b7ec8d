"""What a reading of the supervisor and the worker found: each once a fault."""
import signal
import threading
import time

import graphs
import msgpack
import sp
from fake import fake_node, script
from node import SLOW, Node, wait
from registry import check, test


def wakeups(n):
    """How often galleyd's loop has gone to sleep."""
    with open("/proc/%d/status" % n.process.pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt_switches"))


@test()
def a_slot_without_a_process_does_not_keep_the_loop_awake():
    """The stop ladder of a worker ends with it: past its limits the loop sleeps while the slot waits for its next start."""
    with fake_node(term_grace_ms=100, backoff_ms=60000, heartbeat_ms=1000) as n:
        n.call("worker_restart", device="cpu:0")
        wait("the backoff", lambda: n.worker()["state"] == "backoff")
        stop = threading.Event()
        stop.wait(0.3)                               # past term_grace_ms
        before = wakeups(n)
        stop.wait(2)
        check(wakeups(n) - before < 500, "the loop woke", wakeups(n) - before, "times in two seconds")


@test()
def a_worker_that_hangs_is_replaced_more_and_more_slowly():
    """The delay before the next start doubles after a kill for silence as it does after a death."""
    with fake_node(heartbeat_dead_ms=int(400 * SLOW), backoff_ms=1000, max_attempts=1) as n:
        for least in (0, 1.3):
            n.settled(n.enqueue(script("silent")))
            wait("the backoff", lambda: n.worker()["state"] == "backoff")
            begin = time.monotonic()
            wait("the next worker", lambda: n.worker()["state"] == "ready")
            check(time.monotonic() - begin > least, "started again after", time.monotonic() - begin)


@test()
def memory_that_ran_out_is_told_by_the_exit_code():
    """Exit 4 in the middle of an item is no death of the item's: twice is out_of_memory, not poison."""
    with fake_node() as n:
        item, = n.enqueue(script("exit=4"))
        row = n.settled([item])[item]
        check(row["status"] == "failed" and row["error_type"] == "out_of_memory" and row["deaths"] == 0, row)


@test()
def nothing_starts_after_a_pause_was_answered():
    """Items follow each other without a gap; between queue_paused and queue_resumed none starts."""
    with Node() as n:
        since = n.call("hello")["seq"]
        ids = n.enqueue(graphs.add(), runs=400)
        pauses = 0
        while n.call("status")["queue"]["pending"]:
            n.call("pause")
            n.call("resume")
            pauses += 1
        n.completed(ids)
        paused, started = False, []
        for e in n.events(since, max=10000):
            if e["event"] in ("queue_paused", "queue_resumed"):
                paused = e["event"] == "queue_paused"
            elif paused and e.get("status") == "in_progress":
                started.append(e)
        check(pauses and not started, len(started), "started in", pauses, "pauses:", started[:1])


@test()
def nothing_starts_after_term():
    """Items follow each other without a gap; none is given to a worker once the node drains."""
    for _ in range(4):
        with Node() as n, sp.Connection(n.path("events"), sp.SUB) as s:
            n.completed(n.enqueue(graphs.add()))     # from here on the subscription is known to be there
            n.enqueue(graphs.add(), runs=800)
            wait("some", lambda: n.call("status")["queue"]["completed"] > 50)
            n.send(signal.SIGTERM)
            claimed, started, draining = set(), [], False
            try:
                while True:
                    _, e = msgpack.unpack_stream(s.recv(10 * SLOW))
                    draining = draining or e.get("state") == "draining"
                    if draining and e.get("status") == "in_progress":
                        claimed.add(e["item_id"])
                    if e["event"] == "invocation_started" and e["item_id"] in claimed:
                        started.append(e)
            except (sp.Gone, sp.Silent):
                pass
            check(n.process.wait(20 * SLOW) == 0 and draining and not started, started)


@test()
def what_cannot_reach_a_worker_is_refused_at_enqueue():
    """Graph, data and workflow are limited each; what is refused names itself, and nothing runs without its values."""
    with Node(listener_probe_ms=0) as n:     # these frames keep a small machine busy for longer than the guard waits
        text = "x" * ((8 << 20) + 1)
        node = {"type": "string", "value": "", "use_cache": False}
        for part, batch in (("data", {"graph": graphs.graph({"s": node}), "data": [[{"node_path": "s", "field_name": "value", "items": [text]}]]}),
                            ("workflow", {"graph": graphs.graph({"s": node}), "workflow": text})):
            e = n.refused("enqueue", within=60, batch=batch)
            check(e.code == "too_large" and "'%s'" % part in e.message, part, e.message)
        check(n.items() == [])


@test()
def a_node_whose_devices_are_paused_is_not_ready():
    """Readiness is about an item that comes now: with its only device paused it would not start."""
    with fake_node() as n:
        n.call("pause", device="cpu:0")
        status = n.call("status")
        check(not status["ready"] and "cpu:0 is paused" in status["reason"], status["reason"])
        item, = n.enqueue(script(""))
        check(n.row(item)["status"] == "pending")
        n.call("resume", device="cpu:0")
        n.completed([item])
        check(n.call("status")["ready"])


@test()
def a_drain_asked_for_twice_is_one():
    """The op repeated (as REQ sockets do) does not stop what may still end."""
    with fake_node(drain_ms=20000) as n:
        item, = n.enqueue(script("wait=1"))
        wait("the item to run", lambda: n.worker()["item_id"] == item)
        with sp.Connection(n.path("events"), sp.SUB) as s:
            n.call("drain")
            n.call("drain")
            states = []
            while not any(e.get("status") == "completed" and e.get("item_id") == item for e in states):
                states.append(msgpack.unpack_stream(s.recv(10 * SLOW))[1])
                check(not any(e.get("state") == "stopping" for e in states), "stopped under the item", states)
        check(n.process.wait(20 * SLOW) == 0)


@test()
def a_requeued_item_goes_to_the_next_free_device_at_once():
    """worker_restart gives the item back; the other device takes it without waiting for the backstop."""
    with Node("[cpu:0, cpu:1]") as n:
        item, = n.enqueue(graphs.long_picture())
        first = n.rendering(item)
        since = n.call("hello")["seq"]
        n.call("worker_restart", device=first["device"])
        second = wait("the item on the other device", lambda: next((w for w in n.workers() if w["item_id"] == item and w["device"] != first["device"]), None))
        check(second["deaths"] == 0, second)
        mine = [e for e in n.events(since, item_id=item) if e["event"] == "queue_item_status_changed"]
        check([e["status"] for e in mine] == ["pending", "in_progress"], mine)
        n.call("cancel", item_id=item)
        n.settled([item])


@test()
def a_cancel_right_after_the_start_is_heard():
    """The worker ends an item, gets the next and its cancel before it has cleared up: the cancel is for the next, and no worker is killed for it."""
    with Node(cancel_grace_ms=int(5000 * SLOW)) as n:
        n.completed(n.enqueue(graphs.picture(steps=1)))
        pid = n.worker()["pid"]
        for _ in range(10):
            with sp.Connection(n.path("events"), sp.SUB) as s:
                before, = n.enqueue(graphs.picture(steps=1))
                item, = n.enqueue(graphs.long_picture())
                while True:
                    e = msgpack.unpack_stream(s.recv(10 * SLOW))[1]
                    if e.get("item_id") == item and e.get("status") == "in_progress":
                        break
                n.call("cancel", item_id=item)
                n.settled([before, item])
        check(n.worker()["pid"] == pid, "the worker was killed")
