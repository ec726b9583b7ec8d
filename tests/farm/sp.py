"""SP over unix sockets, spoken by hand: what nng's ipc transport puts on the wire, without nng.

A connection opens with eight bytes each way: 00 'S' 'P' 00, the sender's protocol (16 bits), 00 00. Then frames: 01, a 64-bit length,
the body. A REQ body begins with a 32-bit request number that has its top bit set.
"""
import os
import select
import socket
import struct
import time

PAIR, PUB, SUB, REQ, REP = 0x10, 0x20, 0x21, 0x30, 0x31


class Gone(Exception):
    """Nobody is there, or the other side closed."""


class Silent(Exception):
    """Nothing came within the limit."""


class Connection:
    def __init__(self, path, protocol, limit=10.0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(limit)
        self.buffer = b""
        try:
            self.socket.connect(path)
            self.socket.sendall(b"\0SP\0" + struct.pack(">HH", protocol, 0))
            hello = self.take(8, time.monotonic() + limit)
        except (ConnectionError, FileNotFoundError, PermissionError) as e:
            self.socket.close()
            raise Gone("%s: %s" % (path, e)) from None
        except socket.timeout:
            self.socket.close()
            raise Silent(path) from None
        except (Gone, Silent):
            self.socket.close()
            raise
        assert hello[:4] == b"\0SP\0", hello

    def take(self, n, end):
        while len(self.buffer) < n:
            if not select.select([self.socket], [], [], max(0, end - time.monotonic()))[0]:
                raise Silent("no bytes")
            try:
                chunk = self.socket.recv(1 << 20)
            except ConnectionError:
                chunk = b""
            if not chunk:
                raise Gone("closed by the other side")
            self.buffer += chunk
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def send(self, body):
        try:
            self.socket.sendall(b"\1" + struct.pack(">Q", len(body)) + body)
        except ConnectionError:
            raise Gone("closed by the other side") from None
        except socket.timeout:
            raise Silent("the other side does not read") from None

    def recv(self, limit=10.0):
        """The next frame. A Silent in the middle of one keeps what has come."""
        end = time.monotonic() + limit
        head = self.take(9, end)
        assert head[0] == 1, head
        try:
            return self.take(struct.unpack(">Q", head[1:])[0], end)
        except Silent:
            self.buffer = head + self.buffer
            raise

    def closed(self, limit=10.0):
        """True when the other side closes within LIMIT."""
        try:
            self.take(1 << 40, time.monotonic() + limit)
        except Gone:
            return True
        except Silent:
            return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Req(Connection):
    """Asks one thing at a time; never asks twice by itself."""

    def __init__(self, path, limit=10.0):
        super().__init__(path, REQ, limit)
        self.number = struct.unpack(">I", os.urandom(4))[0]

    def ask(self, body, limit=10.0):
        self.post(body)
        return self.answer(limit)

    def post(self, body):
        self.number = (self.number + 1) & 0x7FFFFFFF
        self.send(struct.pack(">I", self.number | 0x80000000) + body)

    def answer(self, limit=10.0):
        end = time.monotonic() + limit
        while True:
            frame = self.recv(end - time.monotonic())
            if frame[:4] == struct.pack(">I", self.number | 0x80000000):
                return frame[4:]
