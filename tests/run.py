"""The test suite: run.py [full]. Run by ./galley.sh test, which has built the release preset.

Each suite is a program that prints lines for people and ends with "N passed, N failed, N skipped"; ctest's results are counted
here. A suite that ends badly, without that line or past its limit counts as one more failure. The last line is the sum.
"full" repeats unit, cases, farm and fuzz corpora under the sanitizers, fuzzes, and runs the long fault tests; it takes over the
results of a plain run that passed on the same build."""
import json, os, re, signal, subprocess, sys, tempfile, time
import xml.etree.ElementTree as ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
JOBS = str(min(2, len(os.sched_getaffinity(0))))
CLOSING = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")
VERDICTS = ("ok", "FAIL", "skip")
LAST_RUN = os.path.join(ROOT, "build/release/.last-test.json")


class Tally:
    def __init__(self):
        self.counts = [0, 0, 0]
        self.failed = []

    def add(self, name, counts, failed=()):
        self.counts = [a + b for a, b in zip(self.counts, counts)]
        self.failed += ["%s: %s" % (name, f) for f in failed]

    def fail(self, name, why):
        print("FAIL %s: %s" % (name, why), flush=True)
        self.add(name, (0, 1, 0), [why])

    def line(self):
        return "%d passed, %d failed, %d skipped" % tuple(self.counts)


def build_dir(preset):
    return os.path.join(ROOT, "build", preset)


def environment(preset, **more):
    """What a test sees. Nothing of the caller's configuration: a test sets its own."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GALLEY_", "XDG_", "INVOKEAI_"))}
    env.update(
        TEST_BUILD_DIR=build_dir(preset),
        TEST_BIN_DIR=os.path.join(build_dir(preset), "bin"),
        TEST_PRESET=preset,
        UBSAN_OPTIONS="print_stacktrace=1",
        LSAN_OPTIONS="print_suppressions=0:suppressions=%s/lsan.supp" % HERE,
        TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:suppressions=%s/tsan.supp" % HERE,
        **more)
    return env


class TooLate(Exception):
    pass


def run_limited(command, limit_s, env, on_line):
    """Runs COMMAND in a session of its own, each output line to ON_LINE; returns the exit code, None past the limit (all killed)."""
    child = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             errors="replace", start_new_session=True)

    def on_alarm(*_):
        raise TooLate   # also when a process that was left behind keeps the output open

    old = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(limit_s)
    try:
        for line in child.stdout:
            on_line(line.rstrip("\n"))
        return child.wait()
    except TooLate:
        return None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()


def heading(name):
    print("== %s" % name, flush=True)


def suite(tally, name, command, limit_s, env):
    """Runs a program that prints a line "ok NAME", "FAIL NAME ..." or "skip NAME ..." per test and its own closing line. Without that line,
    what was seen counts, and one failure more."""
    heading(name)
    started, closing, seen, failed = time.monotonic(), [], [0, 0, 0], []

    def on_line(line):
        match = CLOSING.match(line)
        if match:
            closing[:] = [int(n) for n in match.groups()]
            return
        words = line.split(None, 1)
        if words and not line.startswith(" ") and words[0] in VERDICTS:
            seen[VERDICTS.index(words[0])] += 1
            if words[0] == "FAIL":
                failed.append(words[1] if len(words) > 1 else "?")
        print("   " + line, flush=True)

    code = run_limited(command, limit_s, env, on_line)
    counts = closing or seen
    tally.add(name, counts, failed or (["%d failed" % counts[1]] if counts[1] else []))
    if code is None:
        tally.fail(name, "not done within %d s" % limit_s)
    elif not closing:
        tally.fail(name, "ended with code %d and without a closing line" % code)
    elif code != 0 and closing[1] == 0:
        tally.fail(name, "ended with code %d" % code)
    print("   %s: %d passed, %d failed, %d skipped in %.0f s" % (name, *counts, time.monotonic() - started), flush=True)


def ctest(tally, name, preset, limit_s, *selection):
    heading(name)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report = os.path.join(scratch, "report.xml")
        command = ["ctest", "--test-dir", build_dir(preset), "-j", JOBS, "--output-on-failure", "--repeat", "until-pass:2", "--no-tests=error", "--output-junit", report, *selection]
        output = []
        code = run_limited(command, limit_s, environment(preset), output.append)
        if not os.path.exists(report):
            print("\n".join(output[-60:]))
            tally.fail(name, "ctest ended with code %s and without a report" % code)
            return
        counts, failed = [0, 0, 0], []
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            skipped = case.get("status") in ("notrun", "disabled") and case.find("failure") is None
            bad = not skipped and case.get("status") != "run"
            counts[1 if bad else 2 if skipped else 0] += 1
            if bad:
                failed.append(case.get("name"))
                print("   FAIL %s\n%s" % (case.get("name"), (case.findtext("system-out") or "")[-6000:]))
            elif skipped:
                print("   skip %s" % case.get("name"))
        tally.add(name, counts, failed)
        if code != 0 and not failed:
            tally.fail(name, "ctest ended with code %s" % code)
    print("   %s: %d passed, %d failed, %d skipped in %.0f s" % (name, *counts, time.monotonic() - started), flush=True)


def python_suite(tally, name, script, preset, limit_s, *arguments):
    suite(tally, name, [sys.executable, "-B", os.path.join(HERE, script), *arguments], limit_s, environment(preset))


def runner(tally, name, preset, limit_s, *arguments):
    suite(tally, name, [os.path.join(build_dir(preset), "bin", arguments[0]), *arguments[1:]], limit_s, environment(preset))


def farm(tally, name, preset, limit_s, *arguments):
    """The farm tests. They drive real processes against time limits, so on a busy machine one may come too late: up to three that failed
    run once more by themselves, and the outcome is told; one that fails twice has failed."""
    command = ["--bin", os.path.join(build_dir(preset), "bin")]
    first = Tally()
    python_suite(first, name, "farm/run.py", preset, limit_s, *command, *arguments)
    names = [f.split(": ", 1)[1].split()[0] for f in first.failed]
    if 0 < len(names) <= 3 and len(names) == first.counts[1] and "not" not in names and "ended" not in names:
        again = Tally()
        python_suite(again, name + ", second try", "farm/run.py", preset, 400, *command, *names)
        if again.counts == [len(names), 0, 0]:
            print("   passed on the second try: %s" % " ".join(names))
            first.counts[0], first.counts[1], first.failed = first.counts[0] + len(names), 0, []
    tally.add(name, first.counts)
    tally.failed += first.failed


def long_farm_tests():
    """Names of the farm tests that the plain suite leaves out."""
    def names(*arguments):
        return subprocess.run([sys.executable, "-B", os.path.join(HERE, "farm/run.py"), "--list", *arguments], capture_output=True, text=True, check=True).stdout.split()
    short = set(names("--short"))
    return [n for n in names() if n not in short]


def plain(tally):
    ctest(tally, "unit and ops", "release", 600, "-LE", "^(golden|cases)$")
    python_suite(tally, "lint", "lint/run.py", "release", 60)
    python_suite(tally, "front door", "door/run.py", "release", 120)
    runner(tally, "cases", "release", 120, "galley-cases", os.path.join(HERE, "cases/data"))
    runner(tally, "golden", "release", 300, "galley-golden", os.path.join(HERE, "golden/data"))
    farm(tally, "farm", "release", 700, "--short")
    if os.path.exists(os.path.join(HERE, "docs/run.py")):
        python_suite(tally, "docs", "docs/run.py", "release", 120)


def build(tally, preset):
    """Builds a preset; false if that failed."""
    heading("build " + preset)
    started, output = time.monotonic(), []
    for command in (["cmake", "--preset", preset], ["ninja", "-C", build_dir(preset), "-j", JOBS]):
        if run_limited(command, 1200, dict(os.environ), output.append) != 0:
            print("\n".join(output[-60:]))
            tally.fail("build " + preset, "failed")
            return False
    print("   built in %.0f s" % (time.monotonic() - started), flush=True)
    return True


def sanitized(tally, preset):
    if not build(tally, preset):
        return
    ctest(tally, "unit, %s" % preset, preset, 600, "-LE", "^(golden|cases|ops)$")
    runner(tally, "cases, %s" % preset, preset, 300, "galley-cases", os.path.join(HERE, "cases/data"))
    farm(tally, "farm, %s" % preset, preset, 900, "--short")


def fuzz(tally, seconds=15):
    """Each fuzz target from its corpus for a bounded time, in a scratch folder; what it finds is left in build/fuzz."""
    if not build(tally, "fuzz"):
        return
    heading("fuzz")
    folder = os.path.join(build_dir("fuzz"), "tests")
    targets = sorted(n for n in os.listdir(folder) if n.startswith("fuzz_") and os.access(os.path.join(folder, n), os.X_OK)) if os.path.isdir(folder) else []
    if not targets:
        tally.fail("fuzz", "no targets were built")
    for target in targets:
        kind = target[len("fuzz_"):]
        corpus, words = os.path.join(HERE, "fuzz/corpus", kind), os.path.join(HERE, "fuzz", kind + ".dict")
        with tempfile.TemporaryDirectory() as scratch:
            output = []
            command = [os.path.join(folder, target), "-max_total_time=%d" % seconds, "-timeout=10", "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1",
                       "-max_len=20000", "-artifact_prefix=%s/" % build_dir("fuzz"), scratch, corpus]
            command += ["-dict=" + words] if os.path.exists(words) else []
            code = run_limited(command, seconds * 4 + 60, environment("fuzz"), output.append)
            runs = next((int(line.rsplit(":", 1)[1]) for line in output if "number_of_executed_units" in line), 0)
            if code == 0 and runs > 0:
                tally.add("fuzz", (1, 0, 0))
                print("   ok   %s: %d inputs" % (target, runs), flush=True)
            else:
                print("\n".join(output[-40:]))
                tally.fail("fuzz", "%s ended with code %s" % (target, code))


def build_identity():
    """Which build the release results are of: it changes whenever something was built."""
    stamp = os.path.join(ROOT, "build/release/.everything")
    return os.stat(stamp).st_mtime_ns if os.path.exists(stamp) else None


def take_over(tally):
    """Counts a plain run that passed on this very build; false if there is none."""
    try:
        with open(LAST_RUN) as f:
            last = json.load(f)
    except (OSError, ValueError):
        return False
    if last.get("build") != build_identity() or last["counts"][1]:
        return False
    heading("the plain suite passed on this build already: %d passed, 0 failed, %d skipped" % (last["counts"][0], last["counts"][2]))
    tally.add("plain", last["counts"])
    return True


def record(tally):
    with open(LAST_RUN, "w") as f:
        json.dump({"build": build_identity(), "counts": tally.counts}, f)


def main(arguments):
    if arguments not in ([], ["full"]):
        print("usage: run.py [full]", file=sys.stderr)
        return 2
    started, tally = time.monotonic(), Tally()
    if not arguments or not take_over(tally):
        plain(tally)
        record(tally)
    if arguments:
        names = long_farm_tests()
        if names:
            farm(tally, "long faults", "release", 900, *names)
        for preset in ("asan", "tsan"):
            sanitized(tally, preset)
        fuzz(tally)
    for line in tally.failed:
        print("failed: " + line)
    print("all suites done in %.0f s" % (time.monotonic() - started))
    print(tally.line(), flush=True)
    return 1 if tally.counts[1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
