#!/usr/bin/env python3
"""Stands in for galley-worker and misbehaves on command.

An item says what its worker does: a `string` node's value is a list of words, done in order, one attempt after the other ("1:" before a
word: only on that attempt). Without words left it finishes. Everything else of a worker is here as it should be: hello, heartbeats.
"""
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.environ["FARM_FOLDER"])
import msgpack  # noqa: E402
import sp  # noqa: E402

HELLO, HEARTBEAT, STARTED, PROGRESS, FINISH, ASSIGN, CANCEL = 1, 2, 3, 4, 8, 32, 33


class Worker:
    def __init__(self, argv):
        self.option = dict(zip(argv[1::2], argv[2::2]))
        self.launch = int(self.option["--launch"])
        self.beat = int(self.option["--heartbeat-ms"]) / 1000
        self.link = sp.Connection(self.option["--link"][len("ipc://"):], sp.PAIR)
        self.counter, self.moving, self.beating, self.item, self.canceled, self.deaf = 0, True, True, None, False, False
        self.send(HELLO, {1: 1, 2: self.launch, 3: os.getpid(), 4: self.option["--device"], 5: '{"name":"fake"}', 6: "[]"})

    def send(self, kind, fields):
        self.link.send(msgpack.pack([kind, fields]))

    def heartbeat(self):
        self.counter += self.moving
        if self.beating:
            self.send(HEARTBEAT, {1: self.launch, 2: self.counter, 3: "denoise" if self.item else "idle", 4: 1 << 20})

    def finish(self, outcome="completed", epoch=None, item=None, launch=None):
        self.send(FINISH, {1: launch or self.launch, 2: item or self.item[1], 3: epoch or self.item[2], 4: outcome, 5: "node_failed" if outcome == "failed" else "",
                           6: "as told" if outcome == "failed" else "", 7: '{"results":{}}', 8: "[]", 9: 1})

    def poll(self, seconds):
        """Lives for SECONDS, or until something came from galleyd."""
        end = time.monotonic() + seconds
        while True:
            self.heartbeat()
            try:
                kind, fields = msgpack.unpack(self.link.recv(max(0, min(self.beat, end - time.monotonic()))))
            except sp.Silent:
                if time.monotonic() >= end:
                    return
                continue
            if kind == CANCEL and self.item and not self.deaf:
                self.canceled = True
            if kind == ASSIGN:
                self.item = fields
            return

    def work(self):
        self.canceled = False
        nodes = json.loads(self.item[5])["nodes"]
        words = " ".join(v for v in (n.get("value", "") for n in nodes.values()) if isinstance(v, str)).split()
        for value in json.loads(self.item.get(6) or "[]"):
            words += str(value["value"]).split()
        for word in words:
            attempt, _, rest = word.rpartition(":")
            if attempt and int(attempt) != self.item[3]:
                continue
            name, _, argument = rest.partition("=")
            getattr(self, "do_" + name)(argument)
            if not self.item:
                return
        self.finish("canceled" if self.canceled else "completed")
        self.item = None

    # ---- what an item can ask for

    def do_exit(self, code):
        os._exit(int(code))

    def do_signal(self, name):
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(60)

    def do_wait(self, seconds):
        """Works for SECONDS; a cancel ends it."""
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end and not self.canceled:
            self.poll(min(0.02, end - time.monotonic()))

    def do_fail(self, _):
        self.finish("failed")
        self.item = None

    def do_silent(self, _):
        """Neither heartbeat nor movement."""
        self.beating = False
        time.sleep(3600)

    def do_stuck(self, _):
        """Heartbeats without movement."""
        self.moving = False
        self.do_wait("3600")

    def do_deaf(self, seconds):
        """Works on through a cancel, and through TERM."""
        self.deaf = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.do_wait(seconds)

    def do_garbage(self, _):
        self.link.send(b"\xc1\xff\x00 no frame")
        self.do_wait("3600")

    def do_half(self, _):
        """The head of a frame whose body never comes."""
        self.link.socket.sendall(b"\1\0\0\0\0\0\0\1\0abc")
        self.beating = False
        time.sleep(3600)

    def do_huge(self, _):
        """A frame that claims 2^62 bytes."""
        self.link.socket.sendall(b"\1\x40\0\0\0\0\0\0\0abc")
        self.beating = False
        time.sleep(3600)

    def do_launch(self, _):
        """Speaks for another launch."""
        self.finish(launch=self.launch + 1)
        self.do_wait("3600")

    def do_late(self, _):
        """A finish of an earlier epoch, which must change nothing."""
        self.finish("failed", epoch=self.item[2] - 1 or 99)

    def do_other(self, _):
        """A finish of an item that is not ours."""
        self.finish("failed", item=self.item[1] + 1)

    def do_twice(self, _):
        self.finish()
        self.finish("failed")
        self.item = None

    def do_flood(self, count):
        """Progress as fast as it goes."""
        for step in range(int(count)):
            self.send(PROGRESS, {1: self.launch, 2: self.item[1], 3: self.item[2], 4: "x", 5: "x", 6: "string", 7: "denoise", 8: "flood", 9: step, 10: int(count)})

    def do_grandchild(self, _):
        subprocess.Popen(["sleep", "3600"])


def main():
    if "--probe" in sys.argv:
        real = os.environ["FARM_BIN"] + "/galley-worker"
        os.execv(real, [real] + sys.argv[1:])
    w = Worker(sys.argv)
    try:
        while True:
            if w.item:
                w.work()
            else:
                w.poll(1)
    except sp.Gone:
        os._exit(1)


main()
