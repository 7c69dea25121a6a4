"""Values that a header field should not have, as msgpack; what a random number generator draws of them."""

import random
import struct
from collections.abc import Callable, Sequence

import msgpack

__all__ = ["hostile", "pack_array", "pack_map"]

Draw = Callable[[random.Random], bytes]

_NUMBERS = (-(2**63), -1, 0, 1, 2, 255, 2**16, 2**20, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_FLOATS = (0.0, -0.0, 1.5, 1e308, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "",
    "worker",
    "evaluator",
    "x" * 17,
    "x" * 300,
    "\0\n\r\x1b[2J",
    "{0}{name}%s%n",
    "\u202egnp",
    "tcp://*:1",
    "tcp://[",
    "tcp://:0",
    "ipc://",
    "ipc:///dev/null",
    "tcp://;;;:1",
    "tcp://255.255.255.255:1",
    "http://x:1",
)
_OTHERS = (None, True, False, [], [[]], [0, 0], [1, None], [[0, 1]], {}, {"a": 1}, {1: 2}, {None: None})


def hostile(draw: random.Random) -> bytes:
    """One of them, packed."""
    return draw.choice(_KINDS)(draw)


def pack_map(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A msgpack map of packed keys and values; a key may be there more than once."""
    size = bytes([0x80 | len(pairs)]) if len(pairs) < 16 else struct.pack(">BH", 0xDE, len(pairs))
    return size + b"".join(part for pair in pairs for part in pair)


def pack_array(values: Sequence[bytes]) -> bytes:
    """A msgpack array of packed values."""
    size = bytes([0x90 | len(values)]) if len(values) < 16 else struct.pack(">BH", 0xDC, len(values))
    return size + b"".join(values)


def _plain(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _nested(draw: random.Random) -> bytes:
    """Containers in containers: to the parser's limits and beyond them."""
    depth = draw.choice((3, 30, 511, 513, 1500, 30_000))
    return draw.choice((b"\x91", b"\x81\xa1a")) * depth + b"\xc0"


def _claim(draw: random.Random) -> bytes:
    """The beginning of far more than there is: str 32, bin 32, array 32, map 32, ext 32."""
    return draw.choice((b"\xdb", b"\xc6", b"\xdd", b"\xdf", b"\xc9")) + draw.randbytes(4)


_KINDS: tuple[Draw, ...] = (
    lambda draw: _plain(draw.choice(_NUMBERS)),
    lambda draw: _plain(draw.choice(_NUMBERS)),
    lambda draw: _plain(draw.getrandbits(draw.randrange(1, 64))),
    lambda draw: _plain(draw.choice(_FLOATS)),
    lambda draw: _plain(draw.choice(_TEXTS)),
    lambda draw: _plain(draw.choice(_TEXTS)),
    lambda draw: _plain(draw.randbytes(draw.choice((0, 1, 15, 16, 17, 300)))),
    lambda draw: _plain(draw.choice(_OTHERS)),
    lambda draw: _plain([draw.choice(_NUMBERS) for _ in range(draw.choice((1, 2, 3, 65)))]),
    lambda draw: _plain(dict.fromkeys(map(str, range(draw.choice((1, 64, 65)))), 0)),
    lambda draw: _plain(msgpack.ExtType(draw.randrange(128), draw.randbytes(draw.choice((0, 1, 8))))),
    lambda draw: b"\xdc\x10\x01" + b"\xc0" * 4097 if draw.random() < 0.1 else b"\xc1",
    lambda draw: _plain(draw.randbytes(40_000)) if draw.random() < 0.1 else b"\xff" * 3,
    _nested,
    _claim,
)
