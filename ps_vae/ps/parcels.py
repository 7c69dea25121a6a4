"""Messages that go to one peer at the same time travel together: every message of its own wakes a process up."""

from collections.abc import Iterable, Iterator
from typing import Any

from ps_vae.ps.frames import PARCEL_LIMIT

__all__ = ["parcels"]

# Their headers may be long: many of them might not fit in one frame.
_ALONE = frozenset({"welcome", "admit", "state", "snapshot"})


def parcels(messages: Iterable[Any]) -> Iterator[list[Any]]:
    """The messages in their order, in lists of a few, of which at most one has tensors."""
    parcel: list[Any] = []
    has_tensors = False
    for message in messages:
        carries = bool(getattr(message, "payload", ()))
        is_full = (carries and has_tensors) or len(parcel) == PARCEL_LIMIT
        if parcel and (is_full or message.KIND in _ALONE or parcel[-1].KIND in _ALONE):
            yield parcel
            parcel, has_tensors = [], False
        parcel.append(message)
        has_tensors = has_tensors or carries
    if parcel:
        yield parcel
