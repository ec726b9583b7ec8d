"""generation_devices: what it takes, and what it refuses with words that help."""
import graphs
from node import Node, wait
from registry import check, test


@test()
def device_lists():
    """Lists, duplicates, ranges, auto, and none."""
    rows = [("[cpu:0]", ["cpu:0"]), ("cpu:0", ["cpu:0"]), ("[cpu:0, cpu:1]", ["cpu:0", "cpu:1"]), ("[cpu:1, cpu:0, cpu:1]", ["cpu:1", "cpu:0"]),
            ("auto", ["cpu"]), ("[]", ["cpu"]), ("[cpu:0-1]", ["cpu:0-1"])]
    for given, expected in rows:
        with Node(given) as n:
            names = [w["device"] for w in n.workers()]
            check(names == expected or given in ("auto", "[]") and len(names) == 1, given, names)
            n.completed(n.enqueue(graphs.add()))


@test()
def devices_that_are_not_there():
    """The start ends with exit code 2 and one message that names the device and the valid ones."""
    for given in ("[cpu:999]", "[cpu:0, tpu:0]", "[cuda:99]", "[mps]", "['']", "[GPU-00000000-0000-0000-0000-000000000000]", "[cpu:1-0]", "[cpu:-1]", "[cpu:x]", "{a: 1}"):
        n = Node(given, start=False)
        code, log = n.run_to_end()
        check(code == 2, given, "exit", code, log)
        check("cpu:0" in log or "generation_devices" in log, given, log)


@test()
def bad_configurations():
    """A key that is unknown or out of range ends the start with exit code 2 and names it."""
    for text, words in (("max_queue_siez: 5\n", ["max_queue_siez", "max_queue_size"]), ("max_queue_size: 0\n", ["max_queue_size", "1"]), ("max_queue_size: many\n", ["max_queue_size"]),
                        ("a: [1\n", ["given.yaml:2", "YAML"]), ("log_level: loud\n", ["log_level", "debug"]), ("- 1\n", [])):
        n = Node(start=False)
        path = n.home + "/given.yaml"
        open(path, "w").write(text)
        code, log = n.run_to_end("--config", path)
        check(code == 2 and all(w in log for w in words), text, code, log)
    n = Node(start=False)
    code, log = n.run_to_end("--config", n.home + "/absent.yaml")
    check(code == 2 and "absent.yaml" in log, code, log)


@test()
def reload_takes_what_it_can():
    """HUP reads the file again: a good one counts, a bad one is refused and the old stays."""
    n = Node(start=False)
    path = n.home + "/given.yaml"
    open(path, "w").write("max_queue_size: 5\n")
    n.start("--config", path)
    with n:
        n.call("pause")
        open(path, "w").write("max_queue_size: 7\nheartbeat_ms: 60\n")
        result = n.call("reload")
        check(result["need_restart"] in (["heartbeat_ms"], []), result)
        n.enqueue(graphs.add(), runs=7)
        check(n.refused("enqueue", batch={"graph": graphs.add()}).code == "queue_full")
        open(path, "w").write("max_queue_size: 0\n")
        e = n.refused("reload")
        check(e.code == "bad_config" and "max_queue_size" in e.message, e)
        check("7" in n.refused("enqueue", batch={"graph": graphs.add()}).message)
