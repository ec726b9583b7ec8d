"""A galleyd with a home of its own, driven over its control socket."""
import json
import os
import signal
import subprocess
import tempfile
import time

import msgpack
import sp

BIN = os.environ.get("FARM_BIN", "")
SLOW = float(os.environ.get("FARM_SLOW", "1"))      # how much slower than a release build the programs under test are

# Short times, so that the tests are short too; a test may change each.
CONFIG = {"backoff_ms": 50, "heartbeat_ms": 50, "term_grace_ms": 1000, "cancel_grace_ms": int(2000 * SLOW), "min_free_disk_gb": 0.01,
          "listener_probe_ms": 100, "heartbeat_dead_ms": int(5000 * SLOW), "log_level": "debug", "db_synchronous": "FULL"}


class Refused(Exception):
    """The node answered {"ok": false}."""

    def __init__(self, op, error):
        super().__init__("%s: %s: %s" % (op, error.get("code"), error.get("message")))
        self.code, self.message = error.get("code"), error.get("message", "")


def wait(what, condition, limit=30.0):
    """Waits until CONDITION() is true, and returns its value."""
    end = time.monotonic() + limit * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("never came within %.0f s: %s" % (limit * SLOW, what))
        time.sleep(0.01)


def alive(pid):
    """True while the process exists and is no zombie."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Node:
    def __init__(self, devices="[cpu:0]", home=None, start=True, bin_dir=None, **config):
        self.home = home or tempfile.mkdtemp(prefix="n", dir=os.environ["FARM_ROOT"])
        self.bin = bin_dir or BIN
        self.devices, self.config, self.process = devices, dict(CONFIG, **config), None
        self.log_path = self.home + "/log"
        if start:
            self.start()

    # ---- the process

    def environment(self):
        env = dict(os.environ, GALLEY_HOME=self.home, GALLEY_GENERATION_DEVICES=self.devices)
        for key, value in self.config.items():
            env["GALLEY_" + key.upper()] = json.dumps(value)
        return env

    def spawn(self, *args):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([self.bin + "/galleyd", *args], env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, *args, ready=True):
        self.spawn(*args)
        wait("a node that answers", lambda: self.answers(ready), 30)
        return self

    def answers(self, ready):
        if self.process.poll() is not None:
            raise AssertionError("galleyd ended with %d:\n%s" % (self.process.returncode, self.tail()))
        try:
            return self.call("status", within=2)["ready"] or not ready
        except (sp.Gone, sp.Silent):
            return False

    def run_to_end(self, *args, limit=30):
        """Starts a node that is expected to end by itself: (exit code, what it wrote)."""
        self.spawn(*args)
        code = self.process.wait(limit * SLOW)
        return code, self.log()

    def send(self, signo):
        self.process.send_signal(signo)

    def kill(self, signo=signal.SIGKILL, limit=30):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signo)
        return self.process.wait(limit * SLOW)

    def restart(self, **changes):
        self.config.update(changes)
        return self.start()

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def tail(self, lines=15):
        return "\n".join(self.log().splitlines()[-lines:])

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill(signal.SIGTERM)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            print("---- log of %s\n%s" % (self.home, self.tail(40)))
            if self.process and self.process.poll() is None:
                self.kill()
        else:
            self.close()

    # ---- requests

    def path(self, name="control"):
        return "%s/run/%s" % (self.home, name)

    def raw(self, body, limit=10.0):
        """One request frame on a connection of its own; the reply's bytes."""
        with sp.Req(self.path(), limit * SLOW) as r:
            return r.ask(body, limit * SLOW)

    def call(self, op, within=10.0, **args):
        """The result of OP. WITHIN: seconds until the reply must have come."""
        reply = msgpack.unpack(self.raw(msgpack.pack({"op": op, "args": args}), within))
        if not reply["ok"]:
            raise Refused(op, reply["error"])
        return reply["result"]

    def refused(self, op, **args):
        """The Refused that OP raises."""
        try:
            result = self.call(op, **args)
        except Refused as e:
            return e
        raise AssertionError("%s was not refused: %r" % (op, result))

    # ---- queue

    def enqueue(self, graph, runs=1, data=None, limit=30.0, batch=None, **args):
        """The new item ids, ascending."""
        body = dict({"graph": graph, "runs": runs}, **(batch or {}))
        if data is not None:
            body["data"] = data
        return self.call("enqueue", within=limit, batch=body, **args)["item_ids"][::-1]

    def items(self, **filters):
        rows, cursor = [], 0
        while cursor is not None:
            page = self.call("items", within=30, **dict({"limit": 1000}, **filters, **({"cursor": cursor} if cursor else {})))
            rows += page["items"]
            cursor = page["cursor"]
        return rows

    def row(self, item_id):
        return self.call("item", item_id=item_id)["item"]

    def settled(self, ids, limit=60.0):
        """Waits until the items IDS are terminal; their rows by id."""
        ids = set(ids)

        def done():
            queue = self.call("status")["queue"]
            if len(ids) > 50 and queue["pending"] + queue["in_progress"]:
                return None
            rows = {r["item_id"]: r for r in self.items() if r["item_id"] in ids}
            return rows if len(rows) == len(ids) and all(r["status"] in ("completed", "failed", "canceled") for r in rows.values()) else None
        return wait("the end of %d items" % len(ids), done, limit)

    def completed(self, ids, limit=60.0):
        rows = self.settled(ids, limit)
        bad = [(i, r["status"], r["error_type"], r["error_message"]) for i, r in rows.items() if r["status"] != "completed"]
        assert not bad, bad[:5]
        return rows

    def workers(self):
        return self.call("workers")["workers"]

    def worker(self, slot=0):
        return self.workers()[slot]

    def rendering(self, item_id, step=1, limit=30.0):
        """Waits until ITEM_ID is in its denoise loop; the row of its worker."""
        return wait("item %d to denoise" % item_id, lambda: next((w for w in self.workers() if w["item_id"] == item_id and w["phase"] == "denoise" and w["step"] >= step), None), limit)

    def pictures(self, item_id):
        return self.call("item", item_id=item_id)["images"]

    def outputs(self):
        """Names of the picture files that are published."""
        folder = self.home + "/outputs/images"
        return sorted(n for n in os.listdir(folder) if n.endswith(".png")) if os.path.isdir(folder) else []

    # ---- events

    def events(self, since=0, **args):
        """Every event after SINCE that is held now."""
        all_events = []
        while True:
            page = self.call("events", since=since, **args)
            assert page["lost"] == 0, page["lost"]
            all_events += page["events"]
            if not page["events"]:
                return all_events
            since = page["next"]
