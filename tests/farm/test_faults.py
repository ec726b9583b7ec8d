"""Workers that die, hang and lie (fake_worker.py): only their own attempt suffers, and nothing is lost or done twice."""
import os
import signal

from fake import fake_node, script
from node import SLOW, alive, wait
from registry import check, test


def retried(n, words, limit=30):
    """Runs WORDS, which misbehave on the first attempt, beside an honest item; the row, which must be completed on its second attempt."""
    item, = n.enqueue(script(words))
    row = n.completed([item], limit)[item]
    check(row["attempt"] == 2, "attempt", row["attempt"])
    honest, = n.enqueue(script(""))
    check(n.completed([honest])[honest]["attempt"] == 1, "the next item suffered too")
    return row


@test()
def exit_codes_and_signals_of_workers():
    """Whatever ends a worker in the middle of an item, the item is completed on a second attempt, and the cause is told."""
    with fake_node() as n:
        for words in ("1:exit=0", "1:exit=1", "1:exit=4", "1:exit=5", "1:exit=99", "1:signal=SIGKILL", "1:signal=SIGSEGV", "1:signal=SIGABRT"):
            item, = n.enqueue(script(words))
            row = n.completed([item])[item]
            check(row["attempt"] == 2 and row["error_type"] is None, words, row)
            n.call("worker_restart", device="cpu:0")     # so that different items in a row do not quarantine the device
            wait("a ready worker", lambda: n.worker()["state"] == "ready")


@test()
def two_deaths_bury_an_item():
    """An item that ends two workers is poison; the next one is not harmed."""
    with fake_node() as n:
        bad, = n.enqueue(script("signal=SIGSEGV"))
        good, = n.enqueue(script(""))
        rows = n.settled([bad, good])
        check(rows[bad]["status"] == "failed" and rows[bad]["error_type"] == "poison" and rows[bad]["attempt"] == 2, rows[bad])
        check(str(signal.SIGSEGV.value) in rows[bad]["error_message"], "the cause is not named:", rows[bad]["error_message"])
        check(rows[good]["status"] == "completed", rows[good])


@test()
def a_device_that_fails_different_items_is_quarantined():
    """Three different items end its worker: the device stops, readiness says so, and restart brings it back."""
    with fake_node(backoff_ms=10) as n:
        items = n.enqueue(script("1:signal=SIGSEGV"), runs=3)
        wait("quarantine", lambda: n.worker()["state"] == "quarantined")
        status = n.call("status")
        check(not status["ready"] and status["reason"], status["reason"])
        n.call("worker_restart", device="cpu:0")
        n.completed(items)


@test()
def silent_workers_are_replaced():
    """No heartbeat: killed after heartbeat_dead_ms."""
    with fake_node(heartbeat_dead_ms=int(600 * SLOW)) as n:
        retried(n, "1:silent")
        check("silent for" in n.log(), "the cause is not in the log")


@test()
def workers_that_beat_but_stand_still_are_replaced():
    """Heartbeats without movement: killed after phase_limit_ms."""
    with fake_node(phase_limit_ms=int(600 * SLOW)) as n:
        retried(n, "1:stuck")


@test()
def a_stopped_worker_is_replaced():
    """SIGSTOP: neither TERM nor a frame reaches it, KILL does."""
    with fake_node(heartbeat_dead_ms=int(600 * SLOW)) as n:
        retried(n, "1:signal=SIGSTOP")


@test()
def garbage_on_a_link_costs_the_worker_only():
    """Broken frames, half frames, huge lengths, and frames of another launch."""
    with fake_node(heartbeat_dead_ms=int(1000 * SLOW)) as n:
        for words in ("1:garbage", "1:launch", "1:half", "1:huge"):
            retried(n, words)
            n.call("worker_restart", device="cpu:0")
            wait("a ready worker", lambda: n.worker()["state"] == "ready")


@test()
def stale_finishes_change_nothing():
    """A finish of another epoch or another item, and a second finish, are refused by name in the log."""
    with fake_node() as n:
        for words in ("late", "other", "twice"):
            item, = n.enqueue(script(words))
            after, = n.enqueue(script(""))
            rows = n.completed([item, after])
            check(rows[item]["attempt"] == 1 and rows[after]["attempt"] == 1, words, rows)
        wait("three refusals in the log", lambda: n.log().count("late finish refused") == 3)


@test()
def a_flood_of_progress_is_coalesced():
    """20,000 progress frames make at most progress_rate events a second, and the last one is told."""
    with fake_node(progress_rate=10) as n:
        item, = n.enqueue(script("flood=20000"))
        n.completed([item])
        events = [e for e in n.events(item_id=item) if e["event"] == "invocation_progress"]
        check(0 < len(events) < 200 * SLOW, len(events))
        check(events[-1]["step"] == 19999, events[-1])


@test()
def a_worker_that_ignores_a_cancel_is_killed():
    """cancel frame, then TERM after cancel_grace_ms, then KILL after term_grace_ms; the item is canceled, not retried."""
    with fake_node(cancel_grace_ms=300, term_grace_ms=300) as n:
        item, = n.enqueue(script("deaf=3600"))
        pid = wait("the item to run", lambda: n.worker()["item_id"] == item and n.worker()["pid"])
        n.call("cancel", item_id=item)
        row = n.settled([item])[item]
        check(row["status"] == "canceled" and row["attempt"] == 1, row)
        wait("the worker to be gone", lambda: not alive(pid))
        honest, = n.enqueue(script(""))
        n.completed([honest])


@test()
def grandchildren_die_with_their_worker():
    """The whole session of a dead worker is killed."""
    with fake_node() as n:
        item, = n.enqueue(script("1:grandchild 1:exit=1"))
        n.completed([item])
        left = [p for p in os.listdir("/proc") if p.isdigit() and cmdline(p) == b"sleep\x003600\x00" and of_this_test(p)]
        check(not left, "left behind:", left)


def cmdline(pid):
    try:
        return open("/proc/%s/cmdline" % pid, "rb").read()
    except OSError:
        return b""


def of_this_test(pid):
    try:
        return os.environ["FARM_ROOT"].encode() in open("/proc/%s/environ" % pid, "rb").read()
    except OSError:
        return False


@test()
def a_worker_that_refuses_its_configuration_is_not_respawned():
    """Exit code 2 turns the slot off; the log does not fill with restarts."""
    with fake_node() as n:
        n.enqueue(script("exit=2"))
        wait("an idle slot", lambda: n.worker()["state"] == "off")
        check(n.call("status")["ready"] is False)


@test()
def failed_nodes_are_not_retried():
    """A failure of the graph is the item's own end."""
    with fake_node() as n:
        item, = n.enqueue(script("fail"))
        row = n.settled([item])[item]
        check(row["status"] == "failed" and row["attempt"] == 1 and row["error_message"] == "as told", row)


@test()
def max_attempts_is_the_last_word():
    """One attempt allowed: the first death fails the item."""
    with fake_node() as n:
        item, = n.enqueue(script("exit=1"), max_attempts=1)
        row = n.settled([item])[item]
        check(row["status"] == "failed" and row["attempt"] == 1, row)


@test(limit=120, short=False)
def five_hundred_items_with_random_faults():
    """Two devices, every tenth item kills its worker once, every fortieth hangs: each item ends exactly once."""
    with fake_node("[cpu:0, cpu:1]", backoff_ms=10, heartbeat_dead_ms=int(700 * SLOW)) as n:
        words = ["1:signal=SIGSEGV" if i % 40 == 5 else "1:silent" if i % 160 == 7 else "fail" if i % 25 == 3 else "" for i in range(500)]
        ids = n.enqueue(script(""), data=[[{"node_path": "script", "field_name": "value", "items": words}]])

        def bring_back():
            for w in n.workers():
                if w["state"] == "quarantined":
                    n.call("worker_restart", device=w["device"])
            q = n.call("status")["queue"]
            return q["pending"] + q["in_progress"] == 0
        wait("the end of all", bring_back, 100)
        rows = {r["item_id"]: r for r in n.items()}
        check(sorted(rows) == ids, "items were lost")
        for i, item in enumerate(ids):
            expected = "failed" if words[i] == "fail" else "completed"
            check(rows[item]["status"] == expected, i, words[i], rows[item])
        ends = [e for e in n.events() if e["event"] == "queue_item_status_changed" and e["status"] in ("completed", "failed", "canceled")]
        check(sorted(e["item_id"] for e in ends) == ids, "an item ended twice, or its end was not told")
