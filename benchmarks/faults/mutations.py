"""Messages that somebody has tampered with: valid ones in, frames out, one rule a function, all from a seed.

name      what is done
replay    nothing: it is said once more, or out of turn
value     one to three fields have values that they should not have
nudge     a field has another value of its own type
missing   a key is not there
twice     a key is there twice, with two values
more      there is a key that the message does not have
renamed   a key has another name
kind      it says to be another message
mixed     it has another message's fields beside its own
parcel    it travels with others, or with too many, or the parcel is empty
place     its tensor is said to lie in shared memory
tensors   tensor frames too many, too few, empty, too long, too short, or not made of float32
numbers   its tensors hold other numbers, NaN and infinity among them
bits      some bits of the header are flipped
cut       the header ends too early
grown     there is something in the header that does not belong there
noise     the header is made of random bytes
long      the header is about as long as one may be, or longer
oversized a frame is longer than any that the server takes
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from faults.hostile import hostile, pack_array, pack_map
from ps_vae.ps.frames import HEADER_LIMIT, encode

__all__ = ["MUTATIONS", "Message", "mutate", "plain"]

Pairs = list[tuple[str, Any]]


class Message:
    """A valid message, taken apart: the pairs of its header, and its tensor frames."""

    def __init__(self, message: Any) -> None:
        header, *tensors = encode(message)
        self.pairs: Pairs = list(msgpack.unpackb(header, raw=False).items())
        self.tensors = [bytes(tensor) for tensor in tensors]


def plain(message: Message) -> list[bytes]:
    """Its frames as they are."""
    return [_packed(message.pairs), *message.tensors]


def mutate(draw: random.Random, kind: str, messages: Mapping[str, Message]) -> tuple[str, list[bytes]]:
    """The name of what was done to the message of that kind, and its frames. messages: a valid one of each kind."""
    name = draw.choice(_NAMES)
    return name, MUTATIONS[name](draw, messages[kind], messages)


def _replay(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    return plain(message)


def _value(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    changed = set(draw.choices(range(len(message.pairs)), k=draw.choice((1, 1, 2, 3))))
    pairs = [
        (_pack(key), hostile(draw) if at in changed else _pack(value)) for at, (key, value) in enumerate(message.pairs)
    ]
    return [pack_map(pairs), *message.tensors]


def _nudge(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    pairs = list(message.pairs)
    at = draw.randrange(len(pairs))
    pairs[at] = (pairs[at][0], _nudged(draw, pairs[at][1]))
    return [_packed(pairs), *message.tensors]


def _missing(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    pairs = list(message.pairs)
    del pairs[draw.randrange(len(pairs))]
    return [_packed(pairs), *message.tensors]


def _twice(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    pairs = [(_pack(key), _pack(value)) for key, value in message.pairs]
    again = draw.choice(pairs)[0]
    pairs.insert(draw.randrange(len(pairs) + 1), (again, hostile(draw)))
    return [pack_map(pairs), *message.tensors]


def _more(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    pairs = [(_pack(key), _pack(value)) for key, value in message.pairs]
    keys = [_pack("zz"), _pack("@"), hostile(draw)]
    for _ in range(draw.choice((1, 2, 70))):
        pairs.insert(draw.randrange(len(pairs) + 1), (draw.choice(keys), hostile(draw)[:1000]))
    return [pack_map(pairs), *message.tensors]


def _renamed(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    pairs = [(_pack(key), _pack(value)) for key, value in message.pairs]
    at = draw.randrange(len(pairs))
    pairs[at] = (draw.choice((_pack("T"), _pack(""), hostile(draw))), pairs[at][1])
    return [pack_map(pairs), *message.tensors]


def _kind(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    other = draw.choice((_pack(draw.choice(list(messages))), hostile(draw), _pack("surprise")))
    pairs = [(_pack(key), other if key == "t" else _pack(value)) for key, value in message.pairs]
    return [pack_map(pairs), *message.tensors]


def _mixed(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    other = messages[draw.choice(list(messages))]
    pairs = dict(message.pairs) | dict(draw.sample(other.pairs, draw.randrange(1, len(other.pairs) + 1)))
    return [_packed(list(pairs.items())), *draw.choice((message, other)).tensors]


def _parcel(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    count = draw.choice((0, 1, 2, 3, 8, 9))
    headers = [_packed(draw.choice((message, messages[draw.choice(list(messages))])).pairs) for _ in range(count)]
    if headers and draw.random() < 0.5:
        headers[draw.randrange(count)] = hostile(draw)
    return [pack_array(headers), *message.tensors]


def _place(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    place = draw.choice((_pack([draw.getrandbits(32), draw.getrandbits(6), 0, 8]), hostile(draw)))
    pairs = [(_pack(key), _pack(value)) for key, value in message.pairs]
    return [pack_map([*pairs, (_pack("@"), place)]), *draw.choice(([], message.tensors))]


def _tensors(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    sizes = (0, 1, 3, 4, 5, 32, 4096)
    one = message.tensors[0] if message.tensors else bytes(8)
    tensors: list[bytes] = draw.choice(
        (
            [],
            [one[:-1]],
            [one[:-4]],
            [one + bytes(4)],
            [one, one],
            [*message.tensors, b""],
            [draw.randbytes(draw.choice(sizes)) for _ in range(draw.choice((1, 16, 17, 18, 40)))],
        )
    )
    return [_packed(message.pairs), *tensors]


def _numbers(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    if not message.tensors:
        return _bits(draw, message, messages)
    numbers = np.frombuffer(message.tensors[0], np.uint32).copy()
    for _ in range(draw.choice((1, 2, 8))):
        numbers[draw.randrange(numbers.size)] = draw.choice((0x7FC00000, 0x7F800000, 0xFFFFFFFF, draw.getrandbits(32)))
    return [_packed(message.pairs), numbers.tobytes(), *message.tensors[1:]]


def _bits(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    header = bytearray(_packed(message.pairs))
    for _ in range(draw.choice((1, 1, 2, 8))):
        header[draw.randrange(len(header))] ^= 1 << draw.randrange(8)
    return [bytes(header), *message.tensors]


def _cut(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    header = _packed(message.pairs)
    return [header[: draw.randrange(len(header))], *message.tensors]


def _grown(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    header = _packed(message.pairs)
    at = draw.randrange(len(header) + 1)
    return [header[:at] + draw.randbytes(draw.choice((1, 2, 50))) + header[at:], *message.tensors]


def _noise(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    return [draw.randbytes(draw.choice((1, 2, 16, 200))), *message.tensors]


def _long(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    filling = _pack(bytes(HEADER_LIMIT - draw.choice((0, 1, 200))))
    return [pack_map([(_pack("t"), _pack(dict(message.pairs)["t"])), (_pack("zz"), filling)]), *message.tensors]


def _oversized(draw: random.Random, message: Message, messages: Mapping[str, Message]) -> list[bytes]:
    filling = bytes(max(2 * HEADER_LIMIT, *(2 * len(other.tensors[0]) for other in messages.values() if other.tensors)))
    return draw.choice(([filling], [*plain(message), filling]))


MUTATIONS: dict[str, Callable[[random.Random, Message, Mapping[str, Message]], list[bytes]]] = {
    "replay": _replay,
    "value": _value,
    "nudge": _nudge,
    "missing": _missing,
    "twice": _twice,
    "more": _more,
    "renamed": _renamed,
    "kind": _kind,
    "mixed": _mixed,
    "parcel": _parcel,
    "place": _place,
    "tensors": _tensors,
    "numbers": _numbers,
    "bits": _bits,
    "cut": _cut,
    "grown": _grown,
    "noise": _noise,
    "long": _long,
    "oversized": _oversized,
}
# Fields are what is believed: they are changed most. What is long takes the time of those who send it.
_LONG = ["long", "oversized"]
_NAMES = [name for name in MUTATIONS if name not in _LONG] * 4 + ["value"] * 12 + ["nudge"] * 12 + _LONG


def _packed(pairs: Pairs) -> bytes:
    return pack_map([(_pack(key), _pack(value)) for key, value in pairs])


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _nudged(draw: random.Random, value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return draw.choice((True, False, None, 0))
    if isinstance(value, int):
        return draw.choice((value + 1, max(0, value - 1), 2 * value, value ^ (1 << draw.randrange(62))))
    if isinstance(value, float):
        return draw.choice((-value, value * 1e300, float("nan"), float("inf")))
    if isinstance(value, bytes | str):
        return _nudged_sequence(draw, value)
    if isinstance(value, list) and value:
        at = draw.randrange(len(value))
        return draw.choice((value[:at], value * 2, [*value[:at], _nudged(draw, value[at]), *value[at + 1 :]]))
    return [value]


def _nudged_sequence(draw: random.Random, value: bytes | str) -> Sequence[Any]:
    if isinstance(value, str):
        return draw.choice((value + "x", value[:-1], value.upper(), value + "\n", value * 3))
    if not value:
        return b"x"
    at = draw.randrange(len(value))
    return draw.choice((value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :], value[:-1], value + b"\0"))
