"""The recipes of docs/protocol.md, run as they stand there."""
import json
import os
import shutil
import subprocess
import sys

import docs
import graphs
import msgpack
from node import BIN, SLOW, Node, wait
from registry import Skip, check, test


def environment(n):
    """An environment in which the node is the user's own, as the recipes say."""
    xdg = n.home + "/xdg"
    if not os.path.exists(xdg):
        os.mkdir(xdg)
        os.symlink(n.home + "/run", xdg + "/galley")
    return dict(os.environ, XDG_RUNTIME_DIR=xdg)


def shell(n, name, limit=30):
    if not shutil.which("nngcat"):
        raise Skip("nngcat is not installed (Debian: nng-utils)")
    done = subprocess.run(["bash", "-c", docs.recipe(name)], env=environment(n), stdout=subprocess.PIPE, timeout=limit * SLOW, cwd=n.home)
    check(done.returncode == 0, name, done.returncode)
    return done.stdout


@test()
def recipe_nngcat_commands():
    with Node() as n:
        status = json.loads(shell(n, "nngcat-status"))
        check(status["ok"] and status["result"]["ready"], status)
        first, again = (json.loads(shell(n, "nngcat-enqueue"))["result"] for _ in range(2))
        check(first["item_ids"] == again["item_ids"] and again["replayed"], first, again)
        n.completed(first["item_ids"])
        events = json.loads(shell(n, "nngcat-poll"))["result"]["events"]
        check(any(e["event"] == "batch_enqueued" for e in events), events)


@test()
def recipe_nngcat_events():
    if not shutil.which("nngcat"):
        raise Skip("nngcat is not installed (Debian: nng-utils)")
    with Node() as n:
        cat = subprocess.Popen(["bash", "-c", "exec " + docs.recipe("nngcat-events")], env=environment(n), stdout=subprocess.PIPE)

        def ended():
            n.completed(n.enqueue(graphs.add()))
            return cat.poll() is not None
        wait("three events", ended)
        values = msgpack.unpack_stream(cat.stdout.read())
        check(len(values) == 6 and all(t.startswith("ev/item/") for t in values[::2]), values)
        check(all(e["item_id"] > 0 for e in values[1::2]), values)


@test(limit=200)
def recipe_pynng():
    with Node() as n:
        venv = n.home + "/venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = subprocess.run([venv + "/bin/pip", "install", "--quiet", "--retries", "1", "--timeout", "10", "pynng", "msgpack"], capture_output=True, text=True)
        if pip.returncode:
            raise Skip("pynng and msgpack could not be installed from PyPI")
        done = subprocess.run([venv + "/bin/python", "-c", docs.recipe("pynng")], env=environment(n), capture_output=True, text=True, timeout=60 * SLOW, cwd=n.home)
        check(done.returncode == 0, done.stderr)
        lines = done.stdout.splitlines()
        check(lines[-1].startswith("completed ") and "denoise 20 of 20" in lines, lines)
        with open(n.home + "/apple.png", "rb") as f:
            check(f.read(8) == b"\x89PNG\r\n\x1a\n", "no PNG")


@test(limit=120)
def recipe_c():
    build = os.path.dirname(BIN)
    if not os.path.exists(build + "/lib/libgalley.so") or not shutil.which("cc") or not shutil.which("pkg-config"):
        raise Skip("libgalley is not built, or there is no compiler or pkg-config")
    with Node() as n:
        prefix = n.home + "/prefix"
        os.makedirs(prefix + "/include/galley")
        shutil.copy(os.path.dirname(docs.PATH) + "/../proto/client.h", prefix + "/include/galley")
        with open(build + "/proto/galley.pc") as f:
            lines = f.read().splitlines()
        with open(prefix + "/galley.pc", "w") as f:
            f.write("\n".join(["prefix=" + prefix, "libdir=" + build + "/lib"] + [x for x in lines if not x.startswith(("prefix=", "libdir="))]) + "\n")
        with open(n.home + "/sum.c", "w") as f:
            f.write(docs.recipe("c"))
        command = next(line for line in docs.text().splitlines() if "cc sum.c" in line).split("`")[3]
        flags = ["-fsanitize=address,undefined"] if SLOW == 4 else ["-fsanitize=thread"] if SLOW == 12 else []
        env = dict(environment(n), PKG_CONFIG_PATH=prefix, LD_LIBRARY_PATH=build + "/lib", ASAN_OPTIONS="detect_leaks=0")
        done = subprocess.run(["sh", "-c", " ".join([command, "-Wall", "-Werror"] + flags)], env=env, capture_output=True, text=True, cwd=n.home)
        check(done.returncode == 0, command, done.stderr)
        done = subprocess.run([n.home + "/sum"], env=env, capture_output=True, text=True, timeout=60 * SLOW)
        check(done.returncode == 0 and "completed" in done.stdout, done.stdout, done.stderr)


@test()
def recipes_are_all_tested():
    """Every recipe of the page is run by a test of this file."""
    with open(__file__) as f:
        source = f.read()
    missing = [r for r in docs.recipes() if '"%s"' % r not in source]
    check(not missing, missing)
