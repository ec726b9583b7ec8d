"""Every rule is shown a small tree that breaks it and must complain about it there, and nowhere else."""
import os, subprocess, tempfile

import rules

BROKEN = {
    "includes_follow_the_layers": {
        "common/a.c": '#include "proto/x.h"\n', "graph/b.c": '#include "common/missing.h"\n', "proto/x.h": "", "worker/engine/e.c": '#include "worker/nodes/n.h"\n',
        "worker/nodes/n.h": "", "supervisor/s.c": '#include "worker/w.h"\n', "worker/w.h": "", "client/c.c": '#include "client/d.c"\n', "client/d.c": ""},
    "files_and_functions_are_short": {"common/long.c": "int f(void)\n{\n%s}\n" % ("    f();\n" * 81), "graph/huge.h": "\n" * 801},
    "libraries_neither_log_nor_exit": {"common/a.c": "    exit(1);\n", "worker/engine/b.c": '    fprintf(stderr, "x");\n', "graph/c.c": '    LOGI("x", NULL);\n'},
    "only_proto_uses_nng_and_only_calls_that_both_versions_have": {"supervisor/a.c": "#include <nng/nng.h>\n", "proto/b.c": "    nng_no_such_call(1);\n",
                                                                   "tests/lint/nng_calls.txt": "nng_close\n"},
    "tests_wait_for_events_not_for_time": {"tests/a.c": "    usleep(100000);\n    usleep(1000);\n", "tests/b.py": "time.sleep(1)\n", "tests/c.sh": "sleep 2\n"},
    "no_leftovers_and_nothing_outside_the_tree": {"common/a.c": "/* TO" "DO later */\n", "docs/b.md": "see ../" "shared/x\n"},
    "the_reference_is_current": {
        "common/status.def": 'STATUS(OK, "ok", NONE, "done")\n', "common/config.def": "CONFIG(key_a, INT, 1, 0, 2, RELOAD, \"x\")\n",
        "proto/commands.def": 'COMMAND(op_a, ANYONE, "x") END_COMMAND(op_a)\nLATER(op_b, "y")\n', "worker/backend/ops.def": 'OP(A, "a", 1, 0, 0, 0)\n',
        "docs/reference.md": "# Reference\n"},
    "programs_link_no_gpu_library": {"common/a.c": ""},
}
EXPECTED = {"includes_follow_the_layers": 5, "files_and_functions_are_short": 2, "libraries_neither_log_nor_exit": 3,
            "only_proto_uses_nng_and_only_calls_that_both_versions_have": 2, "tests_wait_for_events_not_for_time": 3, "no_leftovers_and_nothing_outside_the_tree": 2,
            "the_reference_is_current": 1, "programs_link_no_gpu_library": 3}


def write_tree(root, tree):
    for name, text in tree.items():
        os.makedirs(os.path.join(root, os.path.dirname(name)), exist_ok=True)
        with open(os.path.join(root, name), "w") as f:
            f.write(text)


def forget():
    for cached in (rules.files, rules.lines, rules.bare_lines):
        cached.cache_clear()


def complaints_about(rule, tree):
    real = rules.ROOT
    build = os.environ.pop("TEST_BUILD_DIR", None)
    with tempfile.TemporaryDirectory() as root:
        write_tree(root, tree)
        rules.ROOT = root
        forget()
        try:
            return list(rule())
        finally:
            rules.ROOT = real
            forget()
            if build is not None:
                os.environ["TEST_BUILD_DIR"] = build


def linked_against_an_engine():
    """A program that needs cuDNN (an empty library of that name), as galleyd: the rule must name the library."""
    with tempfile.TemporaryDirectory() as root:
        write_tree(root, {"bin/x.c": "int main(void) { return 0; }\n", "bin/y.c": "int y;\n"})
        library = os.path.join(root, "libcudnn.so")
        subprocess.run(["gcc", "-shared", os.path.join(root, "bin/y.c"), "-o", library, "-Wl,-soname,libcudnn.so.9"], check=True)
        for program, needed in (("galleyd", library), ("galley", "-lm"), ("galley-worker", "-lm")):
            subprocess.run(["gcc", os.path.join(root, "bin/x.c"), "-o", os.path.join(root, "bin", program), "-Wl,--no-as-needed", needed], check=True)
        before = os.environ.get("TEST_BUILD_DIR")
        os.environ["TEST_BUILD_DIR"] = root
        try:
            return list(rules.programs_link_no_gpu_library())
        finally:
            if before is None:
                del os.environ["TEST_BUILD_DIR"]
            else:
                os.environ["TEST_BUILD_DIR"] = before


def every_rule_can_fail():
    for rule in rules.RULES:
        name = rule.__name__
        found = complaints_about(rule, BROKEN[name])
        if len(found) != EXPECTED[name]:
            yield "%s complains %d times about a tree with %d faults: %s" % (name, len(found), EXPECTED[name], found)
    found = linked_against_an_engine()
    if len(found) != 1 or "libcudnn" not in found[0]:
        yield "programs_link_no_gpu_library does not name libcudnn: %s" % found
