"""Messages as frames: a table of fields on one side, bytes on the other. Pure; PROTOCOL.md lists the messages.

Frame 0 is a msgpack map of at most 64 KiB whose key `t` names the kind; the frames after it are raw tensors, little endian.
Everything is checked before it is believed: sizes before parsing, then kind, keys, types and ranges. What does not fit is a PeerError.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError

__all__ = [
    "HEADER_LIMIT",
    "Check",
    "binary",
    "boolean",
    "decode",
    "encode",
    "header_field",
    "integer",
    "list_of",
    "number",
    "optional",
    "tensors",
    "text",
]

HEADER_LIMIT = 64 * 1024
_ARRAY_LIMIT = 4096

Check = Callable[[Any], Any]
Frame = bytes | bytearray | memoryview


def header_field(key: str, check: Check) -> Any:
    """A dataclass field that travels in the header under `key`; `check` returns the value to keep or raises ValueError."""
    return dataclasses.field(metadata={"key": key, "check": check})


def tensors(at_most: int) -> Any:
    """The dataclass field that takes the frames after the header: a tuple of float32 vectors."""
    return dataclasses.field(default=(), metadata={"at_most": at_most})


def integer(bits: int = 63) -> Check:
    """An integer in [0, 2**bits)."""

    def check(value: Any) -> int:
        if type(value) is not int or not 0 <= value < 1 << bits:
            raise ValueError(f"not an integer in [0, 2^{bits})")
        return value

    return check


def number(value: Any) -> float:
    """A float (msgpack float64)."""
    if type(value) is not float:
        raise ValueError("not a float")
    return value


def boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("not a boolean")
    return value


def binary(at_most: int, at_least: int = 0) -> Check:
    """Bytes of a bounded length."""

    def check(value: Any) -> bytes:
        if type(value) is not bytes or not at_least <= len(value) <= at_most:
            raise ValueError(f"not {at_least} to {at_most} bytes")
        return value

    return check


def text(at_most: int) -> Check:
    """UTF-8 text of a bounded length."""

    def check(value: Any) -> str:
        if type(value) is not str or len(value) > at_most:
            raise ValueError(f"not text of at most {at_most} characters")
        return value

    return check


def optional(inner: Check) -> Check:
    """nil, or what `inner` takes."""
    return lambda value: None if value is None else inner(value)


def list_of(inner: Check | Sequence[Check], at_most: int = _ARRAY_LIMIT) -> Check:
    """An array: of any number of `inner`, or exactly one of each of several checks. It becomes a tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > at_most:
            raise ValueError(f"not an array of at most {at_most}")
        if callable(inner):
            return tuple(inner(item) for item in value)
        if len(value) != len(inner):
            raise ValueError(f"not an array of {len(inner)}")
        return tuple(one(item) for one, item in zip(inner, value, strict=True))

    return check


def encode(message: Any) -> list[Any]:
    """The frames of a message. Tensors are not copied: frames after the first are views of the arrays."""
    header: dict[str, Any] = {"t": message.KIND}
    frames: list[Any] = []
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if "key" in field.metadata:
            header[field.metadata["key"]] = value
        else:
            frames = [_tensor_frame(array) for array in value]
    return [msgpack.packb(header), *frames]


def decode(frames: Sequence[Frame], kinds: dict[str, type]) -> Any:
    """The message that the frames are; PeerError (`malformed` or `unknown-message`) where they are none.

    kinds  the messages that may come here, by kind
    """
    header = _unpack(frames)
    kind = header.pop("t", None)
    cls = kinds.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise PeerError("unknown-message", f"no message {kind!r} is known here; known are {', '.join(sorted(kinds))}")
    values: dict[str, Any] = {}
    vectors: tuple[npt.NDArray[np.float32], ...] | None = None
    for field in dataclasses.fields(cls):
        if "key" not in field.metadata:
            values[field.name] = vectors = _vectors(kind, frames[1:], field.metadata["at_most"])
            continue
        key = field.metadata["key"]
        if key not in header:
            raise PeerError("malformed", f"{kind}: the key {key!r} is missing")
        try:
            values[field.name] = field.metadata["check"](header.pop(key))
        except ValueError as error:
            raise PeerError("malformed", f"{kind}: {key!r} is {error}") from None
    if header:
        raise PeerError("malformed", f"{kind}: {len(header)} keys that it does not have")
    if vectors is None and len(frames) > 1:
        raise PeerError("malformed", f"{kind}: {len(frames) - 1} frames after the header, expected none")
    return cls(**values)


def _unpack(frames: Sequence[Frame]) -> dict[str, Any]:
    if not frames or len(frames[0]) > HEADER_LIMIT:
        raise PeerError("malformed", f"the header is missing or longer than {HEADER_LIMIT} bytes")
    try:
        header = msgpack.unpackb(
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
    if type(header) is not dict or not all(type(key) is str for key in header):
        raise PeerError("malformed", "the header is not a map with text keys")
    return header


def _vectors(kind: str, frames: Sequence[Frame], at_most: int) -> tuple[npt.NDArray[np.float32], ...]:
    if len(frames) > at_most:
        raise PeerError("malformed", f"{kind}: {len(frames)} tensors, at most {at_most} expected")
    for frame in frames:
        if len(frame) % 4:
            raise PeerError("malformed", f"{kind}: a tensor of {len(frame)} bytes is not made of float32")
    return tuple(np.frombuffer(frame, np.dtype("<f4")) for frame in frames)


def _tensor_frame(array: npt.NDArray[np.float32]) -> memoryview:
    return memoryview(np.ascontiguousarray(array, np.dtype("<f4"))).cast("B")
