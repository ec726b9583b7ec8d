"""Prints the table of docs/benchmarks.md: figures of the release build beside floors measured in the same run.

    python3 -B tests/bench/bench.py [NAME...]      (build first: ./galley.sh --version)

Standard library only. Quote ratios: machines differ, and so does the same machine from hour to hour."""
import os, signal, statistics, sys, tempfile, time
from datetime import datetime

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/farm"))
os.environ.setdefault("FARM_BIN", os.path.join(ROOT, "build/release/bin"))
os.environ.setdefault("FARM_ROOT", tempfile.mkdtemp(prefix="gb-"))
import graphs, node  # noqa: E402

SETTINGS = dict(log_level="warning", heartbeat_ms=250, listener_probe_ms=1000, backoff_ms=250)


def fdatasync(n=300):
    """Milliseconds of each of N fdatasync calls after 4 KiB appends, sorted."""
    took = []
    with tempfile.NamedTemporaryFile(dir=os.environ["FARM_ROOT"]) as f:
        for _ in range(n):
            f.write(b"x" * 4096)
            f.flush()
            start = time.perf_counter()
            os.fdatasync(f.fileno())
            took.append(1000 * (time.perf_counter() - start))
    return sorted(took)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def stamp(text):
    return datetime.fromisoformat(text).timestamp()


def row(what, seen, beside):
    print("| %s | %s | %s |" % (what, seen, beside), flush=True)


def per_item():
    sync = fdatasync()
    with node.Node("[cpu:0]", **SETTINGS) as n:
        ids = n.enqueue(graphs.add(), runs=2000)
        n.settled(ids, limit=120)
        rows = sorted((r for r in n.items() if r["item_id"] in set(ids)), key=lambda r: r["item_id"])
        took = max(stamp(r["completed_at"]) for r in rows) - min(stamp(r["started_at"]) for r in rows)
        # a finish and the next claim share one commit, so start to start is the gap and the item's own work
        gaps = [1000 * (stamp(b["started_at"]) - stamp(a["started_at"])) for a, b in zip(rows, rows[1:])]
    per_sync = 1000 / statistics.mean(sync)
    row("2,000 integer additions through one worker", "%.0f items/s" % (2000 / took), "fdatasync %.0f/s: ratio %.2f" % (per_sync, 2000 / took / per_sync))
    row("start of an item to the start of the next, p99", "%.0f ms" % quantile(gaps, 0.99), "fdatasync p99 %.1f ms" % quantile(sync, 0.99))


def enqueue():
    with node.Node("[cpu:0]", **SETTINGS) as n:
        n.call("pause")
        took = []
        for _ in range(3):
            start = time.perf_counter()
            n.enqueue(graphs.add(), runs=10000)
            took.append(1000 * (time.perf_counter() - start))
            n.call("clear", within=60)
        n.enqueue(graphs.add(), runs=10000)
        status = []
        for _ in range(100):
            start = time.perf_counter()
            n.call("status")
            status.append(1000 * (time.perf_counter() - start))
        row("enqueue of 10,000 runs, acknowledged", "%.0f ms" % statistics.median(took), "fdatasync median %.1f ms" % statistics.median(fdatasync()))
        row("`status` with 10,000 pending, a new connection each", "%.2f ms" % statistics.median(status), "")


def two_workers():
    took = {}
    for devices in ("[cpu:0]", "[cpu:0, cpu:1]"):
        with node.Node(devices, **SETTINGS) as n:
            n.settled(n.enqueue(graphs.picture(steps=5, size=128), runs=2))
            start = time.perf_counter()
            n.settled(n.enqueue(graphs.picture(steps=20, size=128), runs=20), limit=300)
            took[devices] = time.perf_counter() - start
    one, two = took.values()
    row("20 emoji pictures (128x128, 20 steps), one worker on one core", "%.2f s a picture" % (one / 20), "")
    row("the same on two workers", "%.2f s a picture" % (two / 20), "ratio %.2f" % (two / one))


def cancel():
    with node.Node("[cpu:0]", **SETTINGS) as n:
        frees = []
        for _ in range(10):
            first = n.enqueue(graphs.long_picture())[0]
            n.rendering(first)
            second = n.enqueue(graphs.add())[0]
            start = time.perf_counter()
            n.call("cancel", item_id=first)
            n.settled([second])
            frees.append(1000 * (time.perf_counter() - start))
        row("cancel while denoising to the next item's end", "%.0f ms" % statistics.median(frees), "polled every 10 ms")


def crash():
    with node.Node("[cpu:0]", **SETTINGS) as n:
        back = []
        for _ in range(5):
            item = n.enqueue(graphs.long_picture())[0]
            n.rendering(item)
            pid = n.worker()["pid"]
            start = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            node.wait("another worker at work", lambda: n.worker()["pid"] not in (None, pid) and n.worker()["state"] == "busy")
            back.append(1000 * (time.perf_counter() - start))
            n.call("cancel", item_id=item)
            n.settled([item])
            n.call("worker_restart", device="0")
            node.wait("ready", lambda: n.worker()["state"] == "ready")
        row("SIGKILL of a worker to its item running again", "%.0f ms" % statistics.median(back), "restart delay 250 ms + requeue delay 250 ms")


def start_up():
    took = []
    for _ in range(5):
        start = time.perf_counter()
        n = node.Node("[cpu:0]", **SETTINGS)
        took.append(1000 * (time.perf_counter() - start))
        n.close()
    row("galleyd: process start to ready", "%.0f ms" % statistics.median(took), "")


BENCHES = [start_up, per_item, enqueue, two_workers, cancel, crash]


def main():
    names = sys.argv[1:]
    print("| what | seen | beside |\n| --- | --- | --- |")
    for b in BENCHES:
        if not names or b.__name__ in names:
            b()


if __name__ == "__main__":
    main()
