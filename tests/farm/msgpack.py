"""MessagePack, as much of it as galley speaks; the standard library has none."""
import struct


def pack(v):
    if v is None:
        return b"\xc0"
    if v is True or v is False:
        return b"\xc3" if v else b"\xc2"
    if isinstance(v, int):
        if 0 <= v < 128:
            return bytes([v])
        return b"\xd3" + struct.pack(">q", v) if v < 1 << 63 else b"\xcf" + struct.pack(">Q", v)
    if isinstance(v, float):
        return b"\xcb" + struct.pack(">d", v)
    if isinstance(v, str):
        raw = v.encode()
        return b"\xdb" + struct.pack(">I", len(raw)) + raw
    if isinstance(v, (bytes, bytearray)):
        return b"\xc6" + struct.pack(">I", len(v)) + bytes(v)
    if isinstance(v, (list, tuple)):
        return b"\xdd" + struct.pack(">I", len(v)) + b"".join(map(pack, v))
    if isinstance(v, dict):
        return b"\xdf" + struct.pack(">I", len(v)) + b"".join(pack(k) + pack(x) for k, x in v.items())
    raise TypeError(type(v))


_FIXED = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_LENGTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise ValueError("cut inside a value")
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self):
        t = self.take(1)[0]
        if t < 0x80:
            return t
        if t >= 0xE0:
            return t - 256
        if t in _FIXED:
            return _FIXED[t]
        if t in _NUMBERS:
            return self.number(_NUMBERS[t])
        if t < 0x90:
            return self.map(t & 15)
        if t < 0xA0:
            return [self.value() for _ in range(t & 15)]
        if t < 0xC0:
            return self.take(t & 31).decode()
        if t not in _LENGTHS:
            raise ValueError("byte %#x" % t)
        n = self.number(_LENGTHS[t])
        if t <= 0xC6:
            return bytes(self.take(n))
        if t <= 0xDB:
            return self.take(n).decode()
        return [self.value() for _ in range(n)] if t <= 0xDD else self.map(n)

    def map(self, n):
        return {self.value(): self.value() for _ in range(n)}


def unpack(data):
    """The one value of DATA; ValueError when bytes follow."""
    r = Reader(data)
    v = r.value()
    if r.at != len(data):
        raise ValueError("bytes follow the value")
    return v


def unpack_stream(data):
    """All values of DATA."""
    r, values = Reader(data), []
    while r.at < len(data):
        values.append(r.value())
    return values
