"""The rules over the source tree. A rule is a generator of complaints, "FILE:LINE: what is wrong and what to do"."""
import functools, itertools, os, re, shutil, subprocess

import reference

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What each folder may include; the longest prefix of a file's path decides. docs/architecture.md draws it.
LAYERS = {
    "common": ["common"],
    "graph": ["common", "graph"],
    "proto": ["common", "graph", "proto"],
    "supervisor": ["common", "graph", "proto", "supervisor"],
    "client": ["common", "graph", "proto", "client"],
    "worker/backend": ["common", "worker/backend", "kernels"],
    "worker/engine": ["common", "worker/backend", "worker/engine"],
    "worker/image": ["common", "worker/backend", "worker/image"],
    "worker/nodes": ["common", "graph", "worker/backend", "worker/engine", "worker/image", "worker/nodes"],
    "worker": ["common", "graph", "proto", "worker"],
    "kernels": ["kernels", "worker/backend"],
}
LIBRARIES = ["common", "graph", "proto", "worker/backend", "worker/engine", "worker/image", "worker/nodes"]
NNG_FOLDER = "proto"
MAX_FILE_LINES, MAX_FUNCTION_LINES = 800, 80
GPU_LIBRARIES = re.compile(r"lib(cuda|cudart|cudnn|cublas|nvrtc|dnnl|mkldnn)\b")


@functools.lru_cache(None)
def files():
    """Paths of the tree's text files, relative to its root: what git knows or would add, else what lies there."""
    listed = shutil.which("git") and subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed and listed.returncode == 0 and listed.stdout:
        names = listed.stdout.splitlines()
    else:
        names = []
        for folder, folders, here in os.walk(ROOT):
            folders[:] = [f for f in folders if f not in ("build", ".git", "__pycache__")]
            names += [os.path.relpath(os.path.join(folder, n), ROOT) for n in here]
    return sorted(n for n in names if os.path.isfile(os.path.join(ROOT, n)))


@functools.lru_cache(None)
def lines(name):
    with open(os.path.join(ROOT, name), encoding="utf-8", errors="replace") as f:
        return f.read().splitlines()


def code(*suffixes, under=None):
    return [n for n in files() if n.endswith(suffixes) and (under is None or n.startswith(tuple(u + "/" for u in under)))]


def layer_of(name):
    found = [layer for layer in LAYERS if name.startswith(layer + "/")]
    return max(found, key=len) if found else None


def without_comments(text):
    """TEXT with comments and string contents blanked, line breaks kept."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


@functools.lru_cache(None)
def bare_lines(name):
    return without_comments("\n".join(lines(name))).splitlines()


def includes_follow_the_layers():
    for name in code(".c", ".h", ".def", ".cu"):
        layer = layer_of(name)
        bases = ["", "tests", os.path.dirname(name)] if name.startswith("tests/") else [""]
        for number, line in enumerate(lines(name), 1):
            match = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if not match:
                continue
            target, at = match.group(1), "%s:%d" % (name, number)
            if target.endswith(".c"):
                yield "%s: includes the source file %s" % (at, target)
            elif not any(os.path.isfile(os.path.join(ROOT, base, target)) for base in bases):
                yield '%s: "%s" is no path from the root of the tree' % (at, target)
            elif layer and layer_of(target) not in LAYERS[layer] and not (layer == "worker" and layer_of(target).startswith("worker")):
                yield "%s: %s may not include %s (it may include %s)" % (at, layer, target, ", ".join(LAYERS[layer]))


def files_and_functions_are_short():
    for name in code(".c", ".h", ".cu", ".py", ".sh"):
        if not name.startswith("tests/") and len(lines(name)) > MAX_FILE_LINES:
            yield "%s:1: %d lines, at most %d: split it by job" % (name, len(lines(name)), MAX_FILE_LINES)
        if not name.endswith((".c", ".cu")) or name.startswith("tests/"):
            continue
        start = None
        for number, line in enumerate(lines(name), 1):
            if line == "{":
                start = number
            elif line == "}" and start:
                if number - start - 1 > MAX_FUNCTION_LINES:
                    yield "%s:%d: a function of %d lines, at most %d" % (name, start, number - start - 1, MAX_FUNCTION_LINES)
                start = None


def libraries_neither_log_nor_exit():
    forbidden = re.compile(r"\b(LOG[EWID]|log_line|exit|_exit|quick_exit|abort|perror|printf|puts|err|errx|warnx?)\s*\(|\bfprintf\s*\(\s*std(err|out)\b")
    for name in code(".c", ".h", under=LIBRARIES):
        if name in ("common/log.c", "common/log.h"):
            continue
        for number, line in enumerate(bare_lines(name), 1):
            match = forbidden.search(line)
            if match:
                yield "%s:%d: '%s' in a library: return a status and fill the error" % (name, number, match.group(0).strip())


def only_proto_uses_nng_and_only_calls_that_both_versions_have():
    allowed = {line for line in lines("tests/lint/nng_calls.txt") if not line.startswith("#")}
    for name in code(".c", ".h"):
        inside = name.startswith((NNG_FOLDER + "/", "tests/"))
        for number, line in enumerate(lines(name), 1):
            if not inside and re.match(r"\s*#\s*include\s*<nng/", line):
                yield "%s:%d: only %s/ may include nng" % (name, number, NNG_FOLDER)
        if name.startswith(NNG_FOLDER + "/"):
            for number, line in enumerate(bare_lines(name), 1):
                for call in re.findall(r"\b(nng_\w+)\s*\(", line):
                    if call not in allowed:
                        yield "%s:%d: %s is not in tests/lint/nng_calls.txt (calls that nng 1.5.2 and 1.11 both have)" % (name, number, call)


def tests_wait_for_events_not_for_time():
    """A pause of at most 50 ms between two looks is a poll, and a minute or more is a hang on purpose; what lies between is a guess at
    how long something takes."""
    c_pause = re.compile(r"\busleep\s*\(\s*(\w*)")
    python_pause = re.compile(r"\btime\.sleep\s*\(\s*([\w.]*)")
    shell_pause = re.compile(r"(?<![-\w\"'`.])sleep\s+([0-9.]+)")
    for name in code(".c", ".h", ".py", ".sh", under=["tests"]):
        if name.startswith("tests/lint/"):
            continue
        for number, line in enumerate(lines(name), 1):
            for pattern, unit_s in ((c_pause, 1e-6), (python_pause, 1), (shell_pause, 1)):
                match = pattern.search(line)
                if not match:
                    continue
                try:
                    pause_s = float(match.group(1)) * unit_s
                except ValueError:
                    pause_s = 0
                if 0.05 < pause_s < 60:
                    yield "%s:%d: a fixed sleep of %g s: wait for the event with a limit" % (name, number, pause_s)


def no_leftovers_and_nothing_outside_the_tree():
    leftover = re.compile(r"\b(TODO|FIXME|XXX|HACK|not implemented|placeholder|for now)\b")
    outside = re.compile(r"\.\./shared\b|(?<![\w.])/work/|(?<![\w.])/farm/")
    for name in code(".c", ".h", ".def", ".cu", ".py", ".sh", ".cmake", "CMakeLists.txt", ".md", ".yaml"):
        if name.startswith(("tests/lint/", "models/")):
            continue
        for number, line in enumerate(lines(name), 1):
            if not name.endswith(".md") and leftover.search(line):
                yield "%s:%d: '%s' left over" % (name, number, leftover.search(line).group(0))
            if outside.search(line):
                yield "%s:%d: refers to a place outside the tree" % (name, number)


def the_reference_is_current():
    """Every status, configuration key, command and op is in docs/reference.md as its list has it."""
    path = os.path.join(ROOT, "docs/reference.md")
    wanted = reference.text(ROOT)
    found = "\n".join(lines("docs/reference.md")) + "\n" if os.path.exists(path) else ""
    for number, (a, b) in enumerate(itertools.zip_longest(wanted.splitlines(), found.splitlines()), 1):
        if a != b:
            yield "docs/reference.md:%d: differs from the lists in the source: run python3 -B tests/lint/reference.py --write" % number
            return


def programs_link_no_gpu_library():
    build = os.environ.get("TEST_BUILD_DIR", os.path.join(ROOT, "build/release"))
    for program in ("galleyd", "galley", "galley-worker"):
        path = os.path.join(build, "bin", program)
        if not os.path.exists(path):
            yield "%s: is not built" % path
            continue
        dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
        if not needed:
            yield "%s: readelf lists no libraries" % path
        for library in needed:
            if GPU_LIBRARIES.match(library):
                yield "%s: needs %s; only the module galley-cuda.so may" % (program, library)


RULES = [includes_follow_the_layers, files_and_functions_are_short, libraries_neither_log_nor_exit, only_proto_uses_nng_and_only_calls_that_both_versions_have,
         tests_wait_for_events_not_for_time, no_leftovers_and_nothing_outside_the_tree, the_reference_is_current, programs_link_no_gpu_library]
