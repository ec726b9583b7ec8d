"""What ptxas said of every kernel and architecture: no spills, no stack, few enough registers for two blocks of 512 threads on a multiprocessor.
python3 -B tests/kernels/check_ptxas.py LOG. 77: there is no log, this build has no kernels. The log is of nvcc -Xptxas -v."""
import os, re, sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SPILL_BYTES, STACK_BYTES, REGISTERS = 0, 0, 64
# (kernel, architecture): bytes of spills that are known and accepted, with the reason beside it.
ACCEPTED_SPILLS = {}


def kernels():
    """The names in the list GALLEY_KERNELS of kernels/kernel_abi.h."""
    with open(os.path.join(ROOT, "kernels/kernel_abi.h"), encoding="utf-8") as f:
        listed = re.search(r"#define GALLEY_KERNELS\(KERNEL\)((?:.*\\\n)*.*)", f.read()).group(1)
    return ["galley_" + name for name in re.findall(r"KERNEL\((\w+),", listed)]


def functions(text):
    """{(kernel, architecture): {"spills", "stack", "registers"}} of ptxas' report."""
    found, at = {}, None
    for line in text.splitlines():
        entry = re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line)
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        used = re.search(r"Used (\d+) registers", line)
        if entry:
            at = entry.groups()
            found[at] = {}
        elif at and frame:
            found[at]["stack"], found[at]["spills"] = int(frame.group(1)), int(frame.group(2)) + int(frame.group(3))
        elif at and used:
            found[at]["registers"] = int(used.group(1))
    return found


def complaints(text):
    found = functions(text)
    architectures = sorted({arch for _, arch in found})
    if not architectures:
        yield "the log has no kernel: was nvcc called with -Xptxas -v?"
    for arch in architectures:
        for name in kernels():
            have = found.get((name, arch))
            if not have or len(have) != 3:
                yield "%s %s: not in the log" % (name, arch)
                continue
            for key, bound in (("spills", ACCEPTED_SPILLS.get((name, arch), SPILL_BYTES)), ("stack", STACK_BYTES), ("registers", REGISTERS)):
                if have[key] > bound:
                    yield "%s %s: %s %d, at most %d" % (name, arch, key, have[key], bound)


def check_itself():
    """The check must be able to fail."""
    good = "".join("Compiling entry function '%s' for 'sm_0'\n 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\nUsed 9 registers\n" % k for k in kernels())
    assert not list(complaints(good))
    for old, new in (("0 bytes spill stores", "4 bytes spill stores"), ("0 bytes spill loads", "4 bytes spill loads"), ("0 bytes stack", "8 bytes stack"),
                     ("Used 9", "Used 99"), ("galley_map'", "galley_mop'"), ("registers", "")):
        assert list(complaints(good.replace(old, new, 1))), old
    assert list(complaints(""))


def main():
    check_itself()
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    if not os.path.exists(sys.argv[1]):
        print("%s: no such file: this build has no kernels" % sys.argv[1])
        return 77
    with open(sys.argv[1], encoding="utf-8") as f:
        text = f.read()
    found = list(complaints(text))
    print("\n".join(found) if found else "%d functions: no spills, at most %d registers" % (len(functions(text)), max(f["registers"] for f in functions(text).values())))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
