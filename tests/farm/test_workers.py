"""Real workers that render, and what happens around them."""
import os
import signal

import graphs
from node import SLOW, Node, alive, wait
from registry import check, test


@test(limit=120)
def two_devices_render_at_the_same_time():
    """Both workers are busy together, and each item is done once."""
    with Node("[cpu:0, cpu:1]") as n:
        ids = n.enqueue(graphs.picture(steps=6, size=128), runs=8)
        wait("both busy", lambda: all(w["item_id"] for w in n.workers()))
        rows = n.completed(ids, 100)
        check({r["device"] for r in rows.values()} == {"cpu:0", "cpu:1"}, rows)
        check(all(len(n.pictures(i)) == 1 for i in ids) and len(n.outputs()) == 8, n.outputs())


@test(limit=150)
def a_killed_worker_costs_its_item_one_attempt():
    """SIGKILL, SIGSEGV and SIGSTOP in the middle of a denoise loop: a second attempt, on the other device, with the same picture; what ran there is not disturbed."""
    with Node("[cpu:0, cpu:1]", heartbeat_dead_ms=int(2000 * SLOW)) as n:
        reference, = n.enqueue(graphs.picture(steps=12, size=128, seed=3))
        image = pixels(n, reference)
        for signo in (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP):
            other, = n.enqueue(graphs.picture(steps=60, size=128))
            steady = n.rendering(other)
            item, = n.enqueue(graphs.picture(steps=12, size=128, seed=3))
            victim = n.rendering(item)
            os.kill(victim["pid"], signo)
            rows = n.completed([item, other])
            check(rows[item]["attempt"] == 2 and rows[item]["deaths"] == 1 and rows[item]["device"] == steady["device"], signo, rows[item])
            check(rows[other]["attempt"] == 1 and n.worker(steady["slot"])["pid"] == steady["pid"], "the other device was disturbed", rows[other])
            check(pixels(n, item) == image, "the second attempt made another picture")
            wait("both ready", lambda: all(w["state"] == "ready" for w in n.workers()))
            n.call("worker_restart", device=victim["device"])
            wait("both ready", lambda: all(w["state"] == "ready" and w["pid"] != victim["pid"] for w in n.workers()))


def pixels(n, item):
    """The picture's image data, without the text chunks that name the item."""
    n.completed([item])
    data = n.call("image_get", image_name=n.pictures(item)[0]["image_name"])["bytes"]
    at, image = 8, b""
    while at < len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        if data[at + 4:at + 8] == b"IDAT":
            image += data[at + 8:at + 8 + size]
        at += 12 + size
    return image


@test()
def a_cancel_frees_the_device_without_a_kill():
    """Canceled in the denoise loop: the worker lives on and renders the next item."""
    with Node() as n:
        item, = n.enqueue(graphs.long_picture())
        after, = n.enqueue(graphs.picture(steps=2))
        pid = n.rendering(item)["pid"]
        check(n.call("cancel", item_id=item)["item_ids"] == [item])
        rows = n.settled([item, after])
        check(rows[item]["status"] == "canceled" and rows[after]["status"] == "completed", rows)
        check(n.worker()["pid"] == pid, "the worker was killed")
        check(n.pictures(item) == [] and len(n.outputs()) == 1, "a canceled item left a picture")


@test()
def worker_restart_requeues_uncounted():
    """The item of a restarted worker is tried again, and no death is counted against it."""
    with Node() as n:
        item, = n.enqueue(graphs.picture(steps=40, size=128))
        pid = n.rendering(item)["pid"]
        n.call("worker_restart", device="cpu:0")
        row = n.completed([item])[item]
        check(row["deaths"] == 0, row)
        check(not alive(pid) and n.worker()["pid"] != pid, "the worker is the old one")


@test()
def deleting_a_running_item_leaves_nothing():
    """delete of what runs: the worker stops it, its files go."""
    with Node() as n:
        item, = n.enqueue(graphs.long_picture())
        n.rendering(item)
        check(n.call("delete", item_ids=[item])["item_ids"] == [item])
        n.completed(n.enqueue(graphs.add()))
        check([r["item_id"] for r in n.items()] == [item + 1] and n.outputs() == [], n.items())
        wait("an empty staging folder", lambda: os.listdir(n.home + "/outputs/.staging") == [])


@test()
def workers_are_pinned():
    """cpu:N runs on that processor."""
    with Node("[cpu:1]") as n:
        n.completed(n.enqueue(graphs.picture(steps=1)))
        tasks = "/proc/%d/task" % n.worker()["pid"]
        allowed = [line.split()[1] for t in os.listdir(tasks) for line in open("%s/%s/status" % (tasks, t)) if line.startswith("Cpus_allowed_list")]
        check("1" in allowed, "no thread is pinned to processor 1:", allowed)
