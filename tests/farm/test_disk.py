"""Disks that are full, read-only or not there."""
import os
import subprocess

import graphs
from node import Node, wait
from registry import Skip, check, test


class SmallDisk:
    """A tmpfs of a few MiB; needs root."""

    def __init__(self, path, megabytes):
        os.makedirs(path, exist_ok=True)
        self.path = path
        if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm,mode=0700" % megabytes, "galley-test", path], capture_output=True).returncode:
            raise Skip("a small file system needs root and mount")

    def fill(self):
        """Takes all the space that is left."""
        with open(self.path + "/filler", "wb", buffering=0) as f:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while f.write(b"x" * size):
                        pass
                except OSError:
                    pass

    def free(self):
        os.unlink(self.path + "/filler")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.path], check=True)


@test()
def outputs_on_a_full_disk():
    """The item fails with disk_full, the device lives on, and when there is room again pictures come again."""
    n = Node(start=False, min_free_disk_gb=0)
    with SmallDisk(n.home + "/outputs", 4) as disk:
        n.start()
        with n:
            n.completed(n.enqueue(graphs.picture(steps=1)))
            pid = n.worker()["pid"]
            disk.fill()
            item, = n.enqueue(graphs.picture(steps=1, seed=8))
            row = n.settled([item])[item]
            check(row["status"] == "failed" and "disk_full" in (row["error_type"], row["error_message"]) or "space" in row["error_message"], row)
            check(n.worker()["pid"] == pid, "the worker died of it")
            disk.free()
            n.completed(n.enqueue(graphs.picture(steps=1, seed=9)))
            check(len(n.outputs()) == 2, n.outputs())


@test()
def state_on_a_full_disk():
    """What cannot be written is not acknowledged; the node answers on, and takes work again when there is room."""
    n = Node(start=False, min_free_disk_gb=0)
    with SmallDisk(n.home + "/state", 16) as disk:
        n.start()
        with n:
            before = n.enqueue(graphs.add(), runs=3)
            n.completed(before)
            disk.fill()
            refused, taken = None, []
            for _ in range(200):
                try:
                    taken += n.enqueue(graphs.graph({"s": {"type": "string", "value": "x" * 100000}}))
                except Exception as e:
                    refused = e
                    break
            check(refused is not None and refused.code in ("disk_full", "io_error"), refused)
            check(n.call("status")["ready"] in (True, False))
            disk.free()
            wait("work again", lambda: try_enqueue(n))
            n.settled(before + taken)


def try_enqueue(n):
    try:
        return n.completed(n.enqueue(graphs.add()))
    except Exception:
        return None


@test()
def the_disk_floor_stops_starts():
    """Below min_free_disk_gb nothing is started, readiness says why, and cancel and list go on."""
    with Node(start=False, min_free_disk_gb=1000000) as n:
        n.start(ready=False)
        item, = n.enqueue(graphs.add())
        status = n.call("status")
        check(not status["ready"] and "min_free_disk_gb" in status["reason"], status["reason"])
        check(n.row(item)["status"] == "pending", n.row(item))
        n.call("cancel", item_id=item)


@test()
def outputs_that_cannot_be_written():
    """A file in the place of the folder, a read-only disk: the start, or the item, says which folder."""
    n = Node(start=False)
    blocker = n.home + "/blocker"
    open(blocker, "w").close()
    n.config["outputs_dir"] = blocker + "/outputs"
    code, log = n.run_to_end()
    check(code in (1, 2) and blocker in log, code, log)
    n = Node(start=False, min_free_disk_gb=0)
    with SmallDisk(n.home + "/outputs", 4) as disk:
        n.start()
        with n:
            n.completed(n.enqueue(graphs.picture(steps=1)))
            subprocess.run(["mount", "-o", "remount,ro", disk.path], check=True)
            item, = n.enqueue(graphs.picture(steps=1, seed=8))
            row = n.settled([item])[item]
            check(row["status"] == "failed" and n.home + "/outputs" in row["error_message"], row)
            subprocess.run(["mount", "-o", "remount,rw", disk.path], check=True)
            n.completed(n.enqueue(graphs.picture(steps=1, seed=9)))
