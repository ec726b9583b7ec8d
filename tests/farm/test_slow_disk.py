"""A disk that takes its time, or fails: what is told, and when. See slow_sync.c."""
import os
import signal
import time

import graphs
import msgpack
import sp
from fake import fake_node, script
from node import BIN, Node, alive, wait
from registry import Skip, check, test

HELD_S = 0.5     # long enough for whatever should wait to have come if it did not


class Disk:
    def __init__(self):
        self.library, self.file = os.path.abspath(BIN + "/../tests/libslow_sync.so"), os.path.join(os.environ["FARM_ROOT"], "sync")
        if not os.path.exists(self.library):
            raise Skip("libslow_sync is not built (sanitizers)")
        self.does("go")
        os.environ["SLOW_SYNC"] = self.file

    def does(self, what):
        with open(self.file + ".new", "w") as f:
            f.write(what)
        os.replace(self.file + ".new", self.file)

    def node(self, make=Node, **config):
        os.environ["LD_PRELOAD"] = self.library
        try:
            return make(**config)
        finally:
            del os.environ["LD_PRELOAD"]


def silent(call):
    """True if CALL has no answer within HELD_S."""
    try:
        call()
        return False
    except sp.Silent:
        return True


def of_item(n, item):
    return [e.get("status") or e["event"] for e in n.events() if e.get("item_id") == item]


@test()
def a_worker_begins_while_the_disk_writes():
    """The assignment leaves with the commit; rows, events and replies with the sync, in the order of the queue."""
    disk = Disk()
    with disk.node(fake_node) as n:
        first, second = n.enqueue(script("wait=0.2")) + n.enqueue(script(""))
        wait("the first to run", lambda: n.worker()["item_id"] == first)
        disk.does("hold")
        wait("the second to run", lambda: n.worker()["item_id"] == second)
        check(silent(lambda: n.call("items", within=HELD_S)), "rows that the disk does not have")
        check("completed" not in of_item(n, first) and "in_progress" not in of_item(n, second), of_item(n, first), of_item(n, second))
        disk.does("go")
        rows = n.completed([first, second])
        check(all(r["attempt"] == 1 for r in rows.values()), rows)
        check(of_item(n, first)[-1] == "completed" and of_item(n, second)[-2:] == ["in_progress", "completed"], of_item(n, second))
        seq = {(e["item_id"], e.get("status")): e["seq"] for e in n.events() if e.get("status")}
        check(seq[first, "completed"] < seq[second, "in_progress"], seq)


@test()
def a_worker_that_dies_before_its_claim_is_told():
    """Its death waits for the sync; then the item goes on to its next attempt."""
    disk = Disk()
    with disk.node(fake_node, backoff_ms=10) as n:
        first, second = n.enqueue(script("wait=0.2")) + n.enqueue(script("1:wait=30"))
        wait("the first to run", lambda: n.worker()["item_id"] == first)
        disk.does("hold")
        wait("the second to run", lambda: n.worker()["item_id"] == second)
        pid = n.worker()["pid"]
        os.kill(pid, signal.SIGKILL)
        wait("its death", lambda: not alive(pid))
        time.sleep(HELD_S)
        check(n.worker()["item_id"] == second, n.worker())
        disk.does("go")
        rows = n.completed([first, second])
        check(rows[first]["attempt"] == 1 and rows[second]["attempt"] == 2, rows)
        mine = [e for e in n.events() if e.get("item_id") == second]
        check([e["item_seq"] for e in mine] == list(range(1, len(mine) + 1)), mine)


@test()
def a_drain_is_told_in_order():
    disk = Disk()
    n = disk.node()
    with sp.Connection(n.path("events"), sp.SUB) as s:
        n.completed(n.enqueue(graphs.add()))
        disk.does("hold")
        n.send(signal.SIGTERM)
        time.sleep(HELD_S)
        disk.does("go")
        states = []
        try:
            while True:
                _, e = msgpack.unpack_stream(s.recv(10))
                if e["event"] == "node_state_changed":
                    states.append(e["state"])
        except (sp.Gone, sp.Silent):
            pass
        check(n.process.wait(20) == 0 and states == ["draining", "stopping"], states)


@test()
def what_a_start_recovers_is_told_once_the_disk_has_it():
    disk = Disk()
    n = disk.node(fake_node)
    item = n.enqueue(script("1:wait=30"))[0]
    wait("it to run", lambda: n.worker()["item_id"] == item)
    n.kill()
    disk.does("hold")
    os.environ["LD_PRELOAD"] = disk.library
    n.spawn()
    del os.environ["LD_PRELOAD"]
    end = time.monotonic() + HELD_S
    while time.monotonic() < end:
        try:
            n.call("status", within=HELD_S)
            check(False, "the node answers before the disk has what it recovered")
        except (sp.Gone, sp.Silent):
            pass
    disk.does("go")
    wait("a node that answers", lambda: n.answers(True))
    with n:
        check(n.completed([item])[item]["attempt"] == 2, n.row(item))


@test()
def what_the_disk_did_not_take_is_not_told():
    """A sync that fails ends the node: the request is refused, no reader hears of its rows, and the next start judges what is there."""
    disk = Disk()
    n = disk.node()
    before = n.enqueue(graphs.add())
    n.completed(before)
    with sp.Req(n.path(), 10) as writer, sp.Req(n.path(), 10) as reader:
        disk.does("hold")
        writer.post(msgpack.pack({"op": "enqueue", "args": {"batch": {"graph": graphs.add(), "runs": 1}}}))
        time.sleep(HELD_S)
        reader.post(msgpack.pack({"op": "items", "args": {"limit": 10}}))
        time.sleep(HELD_S)
        disk.does("fail")
        for who in (writer, reader):
            try:
                reply = msgpack.unpack(who.answer(10))
                check(not reply["ok"] and reply["error"]["code"] == "io_error", reply)
            except sp.Gone:
                pass
    check(n.process.wait(20) == 1 and "does not take writes" in n.log(), n.tail())
    disk.does("go")
    with disk.node(home=n.home) as again:
        check(set(before) <= set(again.settled([r["item_id"] for r in again.items()])), again.items())
