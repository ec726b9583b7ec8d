#!/usr/bin/env python3
"""The farm tests: a real galleyd with real and faked workers, driven from outside. Python's standard library only.

    tests/farm/run.py [--bin DIR] [--short] [--jobs N] [--list] [NAME...]

Each test runs in a process of its own, with a time limit and a temporary folder. What it leaves running is killed, and is a failure.
"""
import argparse
import concurrent.futures
import glob
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from registry import TESTS, Skip  # noqa: E402

SKIPPED = 77


def load():
    for path in sorted(glob.glob(HERE + "/test_*.py")):
        importlib.import_module(os.path.basename(path)[:-3])


def slowness(bin_dir):
    """Sanitizers make the programs slower; limits grow with them."""
    with open(bin_dir + "/galleyd", "rb") as f:
        program = f.read()
    return 12.0 if b"__tsan_init" in program else 4.0 if b"__asan_init" in program else 1.0


def run_here(name):
    """The body of a test's own process. SIGUSR1 says that its time is up: it fails where it stands, with the log of its nodes."""
    def time_is_up(*_):
        raise AssertionError("no end within the limit of the test")
    signal.signal(signal.SIGUSR1, time_is_up)
    try:
        TESTS[name]()
    except Skip as e:
        print("SKIP: %s" % e)
        return SKIPPED
    except AssertionError as e:
        print("FAILED: %s" % (e or "assertion"))
        traceback.print_exc(file=sys.stdout)
        return 1
    return 0


def of_test(root):
    """Processes that carry the mark of a test: its temporary folder in their environment."""
    mark, found = b"FARM_ROOT=" + root.encode() + b"\0", []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and mark in open("/proc/%s/environ" % entry, "rb").read() + b"\0":
                found.append(int(entry))
        except OSError:
            pass
    return found


def name_of(pid):
    try:
        return open("/proc/%d/cmdline" % pid, "rb").read().replace(b"\0", b" ").decode(errors="replace")[:80]
    except OSError:
        return "?"


def sweep(root, patience):
    """Waits a moment for what the test started to end, then kills it; returns what had to be killed."""
    end = time.monotonic() + patience
    while of_test(root) and time.monotonic() < end:
        time.sleep(0.02)
    left = {pid: name_of(pid) for pid in of_test(root)}
    while of_test(root):
        for pid in of_test(root):
            try:
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    return left


def last_reason(output):
    lines = [line for line in output.splitlines() if line.startswith(("FAILED:", "SKIP:"))]
    return lines[-1].split(":", 1)[1].strip() if lines else (output.strip().splitlines() or ["no output"])[-1]


def run_one(name, env, slow):
    """Runs one test in a process of its own: (verdict, reason, output)."""
    root = tempfile.mkdtemp(prefix="gf-")
    limit = TESTS[name].limit * slow
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--one", name], env=dict(env, FARM_ROOT=root, TMPDIR=root), stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=out, start_new_session=True, cwd=root)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
            child.send_signal(signal.SIGUSR1)
            try:
                child.wait(10 * slow)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        left = sweep(root, 5 * slow if code in (0, SKIPPED) else 0)
        out.seek(0)
        output = out.read().decode(errors="replace")
    shutil.rmtree(root, ignore_errors=True)
    if code is None:
        return "FAIL", "no end within %.0f s" % limit, output
    if left and code in (0, SKIPPED):
        return "FAIL", "left running: %s" % left, output
    if code < 0:
        return "FAIL", "ended by signal %d" % -code, output
    return {0: "ok", SKIPPED: "skip"}.get(code, "FAIL"), "" if code == 0 else last_reason(output), output


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", help="folder of galleyd, galley-worker and galley (default: build/release/bin)")
    p.add_argument("--short", action="store_true", help="leave the long tests out")
    p.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="tests at the same time (default: one per processor, at most 4)")
    p.add_argument("--list", action="store_true", help="print the names of the tests")
    p.add_argument("--one", help=argparse.SUPPRESS)
    p.add_argument("names", nargs="*", help="tests to run, or beginnings of their names")
    args = p.parse_args()
    load()
    if args.one:
        sys.exit(run_here(args.one))
    chosen = [n for n in TESTS if (not args.names or any(n == x or (x not in TESTS and n.startswith(x)) for x in args.names)) and (TESTS[n].short or not args.short)]
    if args.list or not chosen:
        print("\n".join(chosen))
        sys.exit(0 if chosen else "no test has such a name")
    bin_dir = os.path.abspath(args.bin or HERE + "/../../build/release/bin")
    slow = slowness(bin_dir)
    env = dict(os.environ, FARM_BIN=bin_dir, FARM_SLOW=str(slow))
    for key in [k for k in env if k.startswith("GALLEY_")]:
        del env[key]
    counts = {"ok": 0, "FAIL": 0, "skip": 0}

    def timed(name):
        begin = time.monotonic()
        return (name, *run_one(name, env, slow), time.monotonic() - begin)

    # Most tests wait more than they compute. The longest go first, so that none is left over at the end.
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        order = sorted(chosen, key=lambda n: -TESTS[n].limit)
        for done in concurrent.futures.as_completed([pool.submit(timed, name) for name in order]):
            name, verdict, reason, output, seconds = done.result()
            counts[verdict] += 1
            print("%s %s %s" % (verdict, name, reason or "%.1f s" % seconds), flush=True)
            if verdict == "FAIL":
                print("    " + output.replace("\n", "\n    ").rstrip(), flush=True)
    print("%d passed, %d failed, %d skipped" % (counts["ok"], counts["FAIL"], counts["skip"]))
    sys.exit(1 if counts["FAIL"] else 0)


if __name__ == "__main__":
    main()
