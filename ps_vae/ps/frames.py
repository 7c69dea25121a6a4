"""Messages as frames: a table of fields on one side, bytes on the other. Pure; PROTOCOL.md lists the messages.

Frame 0 is a msgpack map of at most 64 KiB whose key `t` names the kind; the frames after it are raw tensors, little
endian. Everything is checked before it is believed: sizes before parsing, then kind, keys, types and ranges. What does
not fit is a PeerError.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.fields import Check

__all__ = ["HEADER_LIMIT", "decode", "encode", "header_field", "tensors"]

HEADER_LIMIT = 64 * 1024
_ARRAY_LIMIT = 4096

Frame = bytes | bytearray | memoryview


def header_field(key: str, check: Check) -> Any:
    """A dataclass field of type `check` that travels in the header under `key`."""
    return dataclasses.field(metadata={"key": key, "check": check})


def tensors(at_most: int) -> Any:
    """The dataclass field that takes the frames after the header: a tuple of float32 vectors."""
    return dataclasses.field(default=(), metadata={"at_most": at_most})


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
    # A text may quote a file's name, which need not be UTF-8.
    return [msgpack.packb(header, unicode_errors="replace"), *frames]


def decode(frames: Sequence[Frame], kinds: dict[str, type]) -> Any:
    """The message that the frames are; PeerError (`malformed` or `unknown-message`) where they are none.

    kinds  the messages that may come here, by kind
    """
    header = _unpack(frames)
    kind = header.pop("t", None)
    cls = kinds.get(kind) if isinstance(kind, str) else None
    if cls is None:
        shown = repr(kind[:32]) if isinstance(kind, str) else f"of type {type(kind).__name__}"
        raise PeerError("unknown-message", f"no message {shown} is known here; known are {', '.join(sorted(kinds))}")
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
    return np.ascontiguousarray(array, np.dtype("<f4")).view(np.uint8).data
