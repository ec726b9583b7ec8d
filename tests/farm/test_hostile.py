"""Peers that misbehave: the others are served all the same."""
import os
import re
import resource
import socket
import struct
import time

import graphs
import msgpack
import sp
from fake import fake_node, script
from node import SLOW, Node, wait
from registry import Skip, check, test


def raw(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(5)
    s.connect(path)
    return s


def hello(protocol):
    return b"\0SP\0" + struct.pack(">HH", protocol, 0)


# What a bad peer sends after connecting, before it hangs up.
BAD_PEERS = {
    "nothing": b"",
    "three bytes": b"\0SP",
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another protocol": hello(sp.PAIR),
    "a huge length": hello(sp.REQ) + b"\1" + b"\xff" * 8,
    "a length of 8 GiB": hello(sp.REQ) + b"\1" + struct.pack(">Q", 8 << 30) + b"x" * 100,
    "half a request": hello(sp.REQ) + b"\1" + struct.pack(">Q", 1000) + b"\x80\0\0\1half",
    "a request without a number": hello(sp.REQ) + b"\1" + struct.pack(">Q", 0),
    "a request and no reading": hello(sp.REQ) + b"\1" + struct.pack(">Q", 19) + b"\x80\0\0\1" + b'{"op":"status"}',
}


def serves(n, limit=10):
    """True when new connections are served within LIMIT seconds: requests, and events."""
    end = time.monotonic() + limit * SLOW
    while time.monotonic() < end:
        try:
            since = n.call("hello", within=1)["seq"]
            return since > 0
        except (sp.Gone, sp.Silent):
            pass
    return False


def visit(path, what, hold=0):
    s = raw(path)
    try:
        s.sendall(BAD_PEERS[what])
    except OSError:
        pass
    if not hold:
        s.close()
    return s


@test()
def bad_peers_on_control():
    """Twenty of each kind hang up early; the node serves on, and what runs is not disturbed."""
    with fake_node() as n:
        busy, = n.enqueue(script("wait=3600"))
        wait("the item to run", lambda: n.worker()["item_id"] == busy)
        for what in BAD_PEERS:
            for _ in range(20):
                visit(n.path(), what)
            check(serves(n), "after peers that send %s and hang up, the node serves nobody" % what)
        check(n.row(busy)["attempt"] == 1 and n.row(busy)["status"] == "in_progress")
        n.call("cancel", item_id=busy)


@test()
def bad_peers_on_events_and_previews():
    """The same on the two PUB sockets: new subscribers are served."""
    with Node() as n:
        for name in ("events", "previews"):
            for what in BAD_PEERS:
                for _ in range(5):
                    visit(n.path(name), what)

            def subscriber_hears():
                try:
                    with sp.Connection(n.path(name), sp.SUB, 2) as s:
                        if name == "previews":
                            n.completed(n.enqueue(graphs.picture(steps=8)))
                        else:
                            n.completed(n.enqueue(graphs.add()))
                        return s.recv(2)
                except (sp.Gone, sp.Silent):
                    return None
            wait("frames on %s" % name, subscriber_hears, 20)


@test()
def connections_that_are_held():
    """Peers that stay silent in every stage of the handshake."""
    with Node() as n:
        held = [visit(n.path(), what, hold=1) for what in ("nothing", "three bytes", "half a request", "a request and no reading") for _ in range(20)]
        check(serves(n), "held connections stop the node")
        n.completed(n.enqueue(graphs.add()))
        for s in held:
            s.close()


def nng_version(n):
    """Of the library that the node runs on: (1, 5, 2); None when it is linked in."""
    with open("/proc/%d/maps" % n.process.pid) as f:
        found = re.search(r"libnng\.so\.(\d+)\.(\d+)\.(\d+)", f.read())
    return tuple(map(int, found.groups())) if found else None


def goes_deaf(n, rounds=20):
    """Peers connect and hang up until nobody is served any more."""
    for _ in range(rounds):
        for _ in range(20):
            visit(n.path(), "nothing")
        if not serves(n, 2):
            return True
    return False


@test()
def the_listener_probe_is_what_heals():
    """Without listener_probe_ms a node on nng before 1.6 goes deaf after peers that connect and hang up; with it, it heals. So bad_peers_on_control can fail."""
    with Node(listener_probe_ms=0) as n:
        if (nng_version(n) or (1, 6)) >= (1, 6):
            raise Skip("nng 1.6 and later do not go deaf")
        check(goes_deaf(n), "the node serves on without the probe: the probe is not needed, or this test does not see what it is for")
        n.kill()
    with Node(listener_probe_ms=100) as n:
        wait("a healed listener", lambda: not goes_deaf(n, 1) and n.call("status")["node"]["relistened"] >= 1)


@test()
def a_thousand_connections():
    """Past the limit connections are closed; when they go, the node serves on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with Node() as n:
        held, refused = [], 0
        for _ in range(1000):
            try:
                held.append(sp.Connection(n.path(), sp.REQ, 5))
            except (sp.Gone, sp.Silent, OSError):
                refused += 1
        wait("no more than 256 connections", lambda: sum(not c.closed(0) for c in held) <= 256, 20)
        for c in held:
            c.close()
        check(serves(n), "not served after the flood")
        n.completed(n.enqueue(graphs.add()))


@test()
def a_subscriber_that_stops_reading():
    """A stopped subscriber delays nothing, and others get every event."""
    with Node() as n:
        stopped = sp.Connection(n.path("events"), sp.SUB)
        with sp.Connection(n.path("events"), sp.SUB) as s:
            first = n.call("hello")["seq"]
            ids = n.enqueue(graphs.add(), runs=300)
            n.completed(ids)
            last = n.call("hello")["seq"]
            seqs = []
            while not seqs or seqs[-1] < last:
                topic, event = msgpack.unpack_stream(s.recv(5 * SLOW))
                if event["seq"] > first:
                    seqs.append(event["seq"])
            check(seqs == list(range(first + 1, last + 1)), "events are missing")
        stopped.close()


@test()
def a_second_peer_on_a_worker_link():
    """Another process on a worker's socket is turned away, and the item goes on."""
    with fake_node() as n:
        item, = n.enqueue(script("wait=2"))
        wait("the item to run", lambda: n.worker()["item_id"] == item)
        link, = os.listdir(n.path("worker"))
        for _ in range(5):
            try:
                with sp.Connection(n.path("worker/" + link), sp.PAIR, 2) as c:
                    c.send(msgpack.pack([8, {1: 1, 2: item, 3: 1, 4: "failed"}]))
                    check(c.closed(5 * SLOW), "the second peer is served")
            except (sp.Gone, sp.Silent):
                pass
        check(n.completed([item])[item]["attempt"] == 1)


@test()
def sockets_are_private():
    """Folders 0700, sockets 0600."""
    with Node() as n:
        for path in (n.home + "/run", n.home + "/run/worker", n.home + "/state"):
            check(os.stat(path).st_mode & 0o777 == 0o700, path, oct(os.stat(path).st_mode))
        for name in ("control", "events", "previews"):
            check(os.stat(n.path(name)).st_mode & 0o777 == 0o600, name, oct(os.stat(n.path(name)).st_mode))
