"""Messages as frames: a table of fields on one side, bytes on the other. Pure; PROTOCOL.md lists the messages.

Frame 0 is a msgpack map of at most 64 KiB whose key `t` names the kind, or an array of such maps: several messages
at once. The frames after it are raw tensors, little endian, of the one message that has any; a message whose tensor
lies in shared memory names its place under the key `@` instead. Everything is checked before it is believed: sizes
before parsing, then kind, keys, types and ranges. What does not fit is a PeerError.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.fields import Check, Each, Integer
from ps_vae.ps.record import record

__all__ = [
    "HEADER_LIMIT",
    "PARCEL_LIMIT",
    "decode",
    "encode",
    "extra_field",
    "header_field",
    "pack",
    "tensors",
    "unpack",
]

HEADER_LIMIT = 64 * 1024
PARCEL_LIMIT = 8
"""Messages in one parcel."""
_ARRAY_LIMIT = 4096

Frame = bytes | bytearray | memoryview
Vector = npt.NDArray[np.float32]
Place = tuple[int, int, int, int]
Lend = Callable[[Vector], Place | None]
Borrow = Callable[[Place], Vector]
_TEXT = frozenset({str})
_PLACE = Each((Integer(32), Integer(8), Integer(), Integer()))


def header_field(key: str, check: Check, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field of type `check` that travels in the header under `key`, always; `default` is the writer's."""
    return dataclasses.field(default=default, metadata={"key": key, "check": check})


def extra_field(key: str, check: Check, default: Any, *, is_shown: bool = True) -> Any:
    """One that is left out of the header where it is `default`. Such fields come last.

    is_shown  whether `repr` has it
    """
    return dataclasses.field(default=default, repr=is_shown, metadata={"key": key, "check": check, "is_extra": True})


def tensors(at_most: int) -> Any:
    """The dataclass field that takes the frames after the header: a tuple of float32 vectors."""
    return dataclasses.field(default=(), metadata={"at_most": at_most})


@record
class _Form:
    """What a class of messages looks like on the wire; its tensors, if any, come after its fields and before `extra`.

    extra  fields that are left out where they are their default
    """

    fields: tuple[tuple[str, str, Check], ...]
    extra: tuple[tuple[str, str, Check, Any], ...]
    tensors: str | None
    at_most: int


@functools.cache
def _form(cls: Any) -> _Form:
    fields: list[tuple[str, str, Check]] = []
    extra: list[tuple[str, str, Check, Any]] = []
    name, at_most = None, 0
    for field in dataclasses.fields(cls):
        if "is_extra" in field.metadata:
            extra.append((field.name, field.metadata["key"], field.metadata["check"], field.default))
        elif "key" in field.metadata:
            fields.append((field.name, field.metadata["key"], field.metadata["check"]))
        else:
            name, at_most = field.name, field.metadata["at_most"]
    return _Form(tuple(fields), tuple(extra), name, at_most)


def encode(message: Any) -> list[Any]:
    """The frames of one message. Tensors are not copied: frames after the first are views of the arrays."""
    return pack([message])[0]


def decode(frames: Sequence[Frame], kinds: dict[str, type]) -> Any:
    """The one message that the frames are; PeerError (`malformed` or `unknown-message`) where they are none.

    kinds  the messages that may come here, by kind
    """
    messages = unpack(frames, kinds)
    if len(messages) != 1:
        raise PeerError("malformed", f"{len(messages)} messages where one was expected")
    return messages[0]


def pack(messages: Sequence[Any], lend: Lend | None = None) -> tuple[list[Any], list[Place]]:
    """The frames of one or several messages, of which at most one has tensors, and what was lent.

    lend  the place of an array in memory that the receiver reads, None where it has to be sent; one array a message
    """
    headers: list[dict[str, Any]] = []
    frames: list[Any] = []
    lent: list[Place] = []
    for message in messages:
        cls: Any = type(message)
        form = _form(cls)
        header: dict[str, Any] = {"t": message.KIND}
        for name, key, _ in form.fields:
            header[key] = getattr(message, name)
        for name, key, _, default in form.extra:
            if (value := getattr(message, name)) != default:
                header[key] = value
        headers.append(header)
        arrays: tuple[Vector, ...] = getattr(message, form.tensors) if form.tensors is not None else ()
        place = lend(arrays[0]) if lend is not None and len(arrays) == 1 else None
        if place is not None:
            lent.append(place)
            header["@"] = place
        elif arrays:
            frames = [_tensor_frame(array) for array in arrays]
    # A text may quote a file's name, which need not be UTF-8.
    first = msgpack.packb(headers[0] if len(headers) == 1 else headers, unicode_errors="replace")
    return [first, *frames], lent


def unpack(frames: Sequence[Frame], kinds: dict[str, type], borrow: Borrow | None = None) -> list[Any]:
    """The messages that the frames are; PeerError where they are none.

    borrow  the array at a place in memory that is shared with the sender
    """
    messages, rest = [], frames[1:]
    for header in _headers(frames):
        message, rest = _message(header, rest, kinds, borrow)
        messages.append(message)
    if rest:
        raise PeerError("malformed", f"{len(rest)} frames after the header that belong to no message")
    return messages


def _message(
    header: dict[str, Any], frames: Sequence[Frame], kinds: dict[str, type], borrow: Borrow | None
) -> tuple[Any, Sequence[Frame]]:
    """The message of a header, and the frames that are not its tensors."""
    kind = header.pop("t", None)
    cls = kinds.get(kind) if isinstance(kind, str) else None
    if cls is None:
        shown = repr(kind[:32]) if isinstance(kind, str) else f"of type {type(kind).__name__}"
        raise PeerError("unknown-message", f"no message {shown} is known here; known are {', '.join(sorted(kinds))}")
    form = _form(cls)
    key = ""
    try:
        values = [check(header.pop(key := wanted)) for _, wanted, check in form.fields]
        extra: list[tuple[str, Any]] = []
        for name, wanted, check, _ in form.extra:
            if wanted in header:
                extra.append((name, check(header.pop(key := wanted))))
    except KeyError:
        raise PeerError("malformed", f"{kind}: the key {key!r} is missing") from None
    except ValueError as error:
        raise PeerError("malformed", f"{kind}: {key!r} is {error}") from None
    if form.tensors is not None:
        if "@" in header:
            values.append(_borrowed(kind, header.pop("@"), borrow))
        else:
            values.append(_vectors(kind, frames, form.at_most))
            frames = ()
    if header:
        raise PeerError("malformed", f"{kind}: {len(header)} keys that it does not have")
    message = cls(*values)
    for name, value in extra:
        setattr(message, name, value)
    return message, frames


def _headers(frames: Sequence[Frame]) -> list[dict[str, Any]]:
    if not frames or len(frames[0]) > HEADER_LIMIT:
        raise PeerError("malformed", f"the header is missing or longer than {HEADER_LIMIT} bytes")
    try:
        parsed = msgpack.unpackb(
            frames[0],
            raw=False,
            strict_map_key=True,
            max_map_len=64,
            max_array_len=_ARRAY_LIMIT,
            max_ext_len=0,
        )
    # Nesting past the parser's stack is a RecursionError of CPython or a StackError, which is a ValueError.
    except (ValueError, RecursionError) as error:
        raise PeerError("malformed", f"the header is not msgpack: {type(error).__name__}") from None
    headers = parsed if type(parsed) is list else [parsed]
    if not 0 < len(headers) <= PARCEL_LIMIT:
        raise PeerError("malformed", f"{len(headers)} messages at once; there may be {PARCEL_LIMIT}")
    for header in headers:
        if type(header) is not dict or not _TEXT.issuperset(map(type, header)):
            raise PeerError("malformed", "the header is not a map with text keys")
    return headers


def _vectors(kind: str, frames: Sequence[Frame], at_most: int) -> tuple[Vector, ...]:
    if len(frames) > at_most:
        raise PeerError("malformed", f"{kind}: {len(frames)} tensors, at most {at_most} expected")
    for frame in frames:
        if len(frame) % 4:
            raise PeerError("malformed", f"{kind}: a tensor of {len(frame)} bytes is not made of float32")
    return tuple(np.frombuffer(frame, np.dtype("<f4")) for frame in frames)


def _borrowed(kind: str, value: Any, borrow: Borrow | None) -> tuple[Vector, ...]:
    try:
        place = _PLACE(value)
    except ValueError as error:
        raise PeerError("malformed", f"{kind}: '@' is {error}") from None
    if borrow is None:
        raise PeerError("not-shared", f"{kind}: tensors in shared memory, but none is shared on this connection")
    return (borrow(place),)


def _tensor_frame(array: npt.NDArray[np.float32]) -> memoryview:
    return np.ascontiguousarray(array, np.dtype("<f4")).view(np.uint8).data
