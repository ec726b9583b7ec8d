"""The node itself is killed: nothing that was acknowledged is lost, nothing is done twice, and nobody is left behind."""
import os
import random
import signal
import sqlite3
import time

import graphs
import sp
from fake import fake_node, script
from node import SLOW, Node, alive, wait
from registry import check, test


def database(n):
    path, = [os.path.join(n.home + "/state", f) for f in os.listdir(n.home + "/state") if f.endswith((".db", ".sqlite", ".sqlite3"))]
    return sqlite3.connect("file:%s?mode=ro" % path, uri=True)


def database_ok(n):
    with database(n) as db:
        check(db.execute("pragma integrity_check").fetchone() == ("ok",), "the database is damaged")


def workers_gone(pids):
    wait("the workers of the dead node to be gone", lambda: not any(alive(p) for p in pids), 10)


@test()
def killed_in_the_middle_of_an_item():
    """SIGKILL of galleyd with one item running and ten pending: all complete, the running one without a second attempt counted against it, no orphan stays."""
    with Node() as n:
        ids = n.enqueue(graphs.long_picture()) + n.enqueue(graphs.add(), runs=10)
        pid = n.rendering(ids[0])["pid"]
        n.kill()
        workers_gone([pid])
        n.start()
        n.rendering(ids[0])
        check(n.row(ids[0])["deaths"] == 0, n.row(ids[0]))
        n.call("cancel", item_id=ids[0])
        n.completed(ids[1:])
        check(len(n.items()) == 11, "items")


def kill_at_random(seed, kills, items):
    """Kills galleyd KILLS times while ITEMS small items run; each acknowledged one must end exactly once, its picture exist, and no other."""
    rng = random.Random(seed)
    with Node("[cpu:0, cpu:1]", start=False) as n:
        n.config["drain_ms"] = 100
        n.start()
        acknowledged, unsure = [], 0
        for k in range(kills):
            end = time.monotonic() + rng.uniform(0.02, 0.5) * SLOW
            while time.monotonic() < end:
                kind = rng.randrange(3)
                try:
                    acknowledged += n.enqueue(graphs.picture(steps=1, size=64) if kind == 0 else graphs.add(), runs=rng.randrange(1, items // kills + 2), key="%d-%d" % (k, len(acknowledged)))
                except (sp.Gone, sp.Silent):
                    unsure += 1
                time.sleep(rng.uniform(0, 0.05))
            pids = [w["pid"] for w in n.workers() if w["pid"]]
            n.kill()
            workers_gone(pids)
            n.start()
            # An item that runs at three crashes is held: let the ones that ran at this one end.
            wait("the interrupted items", lambda: all(n.row(i)["status"] == "completed" for i in interrupted(n)))
        rows = n.settled(acknowledged, 120)
        check(all(r["status"] == "completed" for r in rows.values()), {i: (r["status"], r["error_message"]) for i, r in rows.items() if r["status"] != "completed"})
        check(len(set(acknowledged)) == len(acknowledged), "an id was given twice")
        pictures = []
        for i in acknowledged:
            mine = [p["image_name"] for p in n.pictures(i)]
            graph = n.call("item", item_id=i)["graph"]["nodes"]
            check(len(mine) == (1 if "decode" in graph else 0), i, mine)
            pictures += mine
        check(sorted(pictures) == n.outputs(), "pictures and rows differ:", set(pictures) ^ set(n.outputs()))
        check(os.listdir(n.home + "/outputs/.staging") == [] if os.path.isdir(n.home + "/outputs/.staging") else True, "staging is not empty")
        events = [e for e in n.events() if e["event"] == "queue_item_status_changed" and e["status"] == "completed"]
        check(len({e["item_id"] for e in events}) == len(events), "an end was told twice in this life of the node")
        n.kill(signal.SIGTERM)
        database_ok(n)


def interrupted(n):
    """Items that a crash of the node has stopped and that are not finished."""
    return [r["item_id"] for r in n.call("snapshot")["items"] if r["reason"]]


@test()
def an_item_that_runs_at_three_crashes_is_held():
    """It may be what kills the node: the others go on, and the row says why."""
    with fake_node() as n:
        item, = n.enqueue(script("wait=3600"))
        after, = n.enqueue(script(""))
        for _ in range(3):
            wait("the item to run", lambda: n.worker()["item_id"] == item)
            n.kill()
            n.start()
        n.completed([after])
        row = n.row(item)
        check(row["state"] == "held" and "three crashes" in row["reason"], row)
        check(n.call("cancel", item_id=item)["item_ids"] == [item])


@test(limit=90)
def killed_at_random_times():
    kill_at_random(seed=1, kills=4, items=40)


@test(limit=400, short=False)
def killed_at_random_times_often():
    for seed in range(2, 7):
        kill_at_random(seed, kills=8, items=100)


@test()
def an_acknowledged_item_survives_a_kill_right_after():
    """The acknowledgement comes after the commit."""
    with Node() as n:
        n.call("pause")
        ids = []
        for _ in range(5):
            ids += n.enqueue(graphs.add())
            n.kill()
            n.start(ready=False)
        check([r["item_id"] for r in n.items()] == ids, n.items())


@test()
def two_nodes_in_one_folder():
    """The second galleyd says so and ends; the first is not disturbed."""
    with Node() as n:
        second = Node(home=n.home, start=False)
        second.log_path = n.home + "/second.log"
        code, log = second.run_to_end()
        check(code == 2 or code == 1, code)
        check("another" in log or "in use" in log, log)
        check(n.call("status")["ready"])


@test()
def stale_sockets_are_no_obstacle():
    """What a killed node leaves behind is removed."""
    with Node() as n:
        n.kill()
        check(os.path.exists(n.path()), "the socket of a killed node is there")
        n.start()
        n.completed(n.enqueue(graphs.add()))


@test()
def sequence_numbers_rise_across_restarts():
    """A since of an earlier life is answered with lost > 0 or with what follows, never with old numbers again."""
    with Node() as n:
        n.completed(n.enqueue(graphs.add()))
        before = n.call("hello")
        n.kill()
        n.start()
        after = n.call("hello")
        check(after["boot_id"] != before["boot_id"] and after["seq"] >= before["seq"], before, after)
        page = n.call("events", since=before["seq"])
        check(page["lost"] > 0 and all(e["seq"] > before["seq"] for e in page["events"]), page)
        check(n.call("events", since=after["seq"] + 10 ** 6)["lost"] > 0, "a number of the future")


@test()
def term_drains():
    """TERM: no new start, what runs may end, exit 0; what was pending is there after the next start."""
    with fake_node(drain_ms=20000) as n:
        busy, = n.enqueue(script("wait=1.5"))
        pending = n.enqueue(script(""), runs=3)
        wait("the item to run", lambda: n.worker()["item_id"] == busy)
        n.send(signal.SIGTERM)
        wait("the refusal of new work", lambda: drains(n), 5)
        check(n.process.wait(30 * SLOW) == 0, n.process.returncode)
        n.start()
        rows = n.completed([busy] + pending)
        check(rows[busy]["attempt"] == 1, rows[busy])


def drains(n):
    try:
        e = n.refused("enqueue", batch={"graph": graphs.add()})
        return e.code == "bad_state"
    except (sp.Gone, sp.Silent, AssertionError):
        return n.process.poll() is not None


@test()
def drain_has_a_limit():
    """What runs longer than drain_ms is requeued without a death of its own."""
    with fake_node(drain_ms=300) as n:
        busy, = n.enqueue(script("wait=3600"))
        wait("the item to run", lambda: n.worker()["item_id"] == busy)
        pid = n.worker()["pid"]
        begin = time.monotonic()
        check(n.kill(signal.SIGTERM) == 0)
        check(time.monotonic() - begin < 15 * SLOW, "the drain took too long")
        check(not alive(pid), "the worker stays")
        n.start()
        wait("the item to run again", lambda: n.row(busy)["status"] == "in_progress")
        check(n.row(busy)["deaths"] == 0, n.row(busy))


@test()
def second_term_and_int_are_fast():
    """INT, or TERM twice, does not wait for what runs."""
    for signals in ([signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]):
        with fake_node(drain_ms=600000, term_grace_ms=500, cancel_grace_ms=500) as n:
            busy, = n.enqueue(script("wait=3600"))
            wait("the item to run", lambda: n.worker()["item_id"] == busy)
            for s in signals:
                n.send(s)
                time.sleep(0)
            check(n.process.wait(15 * SLOW) == 0, n.process.returncode)
            n.restart(drain_ms=100)
            check(n.row(busy)["status"] in ("pending", "in_progress"), n.row(busy))
