"""What a node's process and its members say to each other.

A socketpair (SOCK_SEQPACKET) that the member inherits; a message a packet, framed and checked as those of the protocol
are (ps.frames), with a descriptor where the table says so. Arrays lie in shared memory: the weights in a segment of the
node's process, that members read, and the sums in a segment of each member, that the node's process reads. So nobody
can write to what is another's, and what a member does that was given up, and goes on, harms nobody.

    node -> member    prepare, with the weights' segment    at the start, and when the run is joined anew
    member -> node    prepared, with the sums' segment      MOST_BLOCKS slots
    node -> member    task                                  to a member that has none
    member -> node    done, or failed

The end of the stream is the end of the other: a member then ends, whatever has become of the node's process.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any, ClassVar

from ps_vae.errors import PeerError
from ps_vae.ps.fields import Binary, Each, Integer, ListOf, Nullable, Number, Text
from ps_vae.ps.frames import HEADER_LIMIT, decode, encode, header_field
from ps_vae.ps.record import record

__all__ = [
    "MOST_BLOCKS",
    "TO_MEMBER",
    "TO_NODE",
    "Done",
    "Failed",
    "Prepare",
    "Prepared",
    "Task",
    "needs",
    "receive",
    "send",
]

MOST_BLOCKS = 32
"""Blocks of a task, and slots of a member's segment."""

_MICROBATCH = Integer(20)
_SLOT = Integer(16)


@record
class Prepare:
    """Node -> member: this is the run.

    ticket  names the message
    config  as in the protocol's `welcome`
    data    where the run's data lie on this host, if not where the configuration says
    slots   of the weights' segment
    """

    KIND: ClassVar[str] = "prepare"
    ticket: int = header_field("k", Integer())
    config: bytes = header_field("c", Binary(32 * 1024))
    data: str | None = header_field("d", Nullable(Text(4096)))
    slots: int = header_field("w", _SLOT)


@record
class Prepared:
    """Member -> node: model, data and kernels are there.

    ticket       of the `prepare`
    fingerprint  of the member's arithmetic
    description  of the data, for people
    """

    KIND: ClassVar[str] = "prepared"
    ticket: int = header_field("k", Integer())
    fingerprint: str = header_field("f", Text(256))
    description: str = header_field("d", Text(4096))


@record
class Task:
    """Node -> member: compute the sums of these blocks, at most MOST_BLOCKS. Those of the task before are not read
    any more.

    ticket  names the task
    slot    of the weights
    """

    KIND: ClassVar[str] = "task"
    ticket: int = header_field("k", Integer())
    step: int = header_field("n", Integer())
    slot: int = header_field("w", _SLOT)
    blocks: tuple[tuple[int, int], ...] = header_field("b", ListOf(Each((_MICROBATCH, _MICROBATCH))))


@record
class Done:
    """Member -> node: the sums are there.

    nanoseconds  that they took
    slots        where they are, in the order of the blocks
    metrics      of each
    """

    KIND: ClassVar[str] = "done"
    ticket: int = header_field("k", Integer())
    nanoseconds: int = header_field("ns", Integer())
    slots: tuple[int, ...] = header_field("w", ListOf(_SLOT))
    metrics: tuple[tuple[float, ...], ...] = header_field("m", ListOf(ListOf(Number(), 64)))


@record
class Failed:
    """Member -> node: it cannot be done.

    ticket  of the task; 0: the member ends
    kind    `numerical`, `data`, or `other`
    """

    KIND: ClassVar[str] = "failed"
    ticket: int = header_field("k", Integer())
    kind: str = header_field("c", Text(32))
    text: str = header_field("e", Text(2048))


TO_MEMBER: dict[str, type] = {cls.KIND: cls for cls in (Prepare, Task)}
TO_NODE: dict[str, type] = {cls.KIND: cls for cls in (Prepared, Done, Failed)}


def send(stream: socket.socket, message: Any, descriptor: int | None = None) -> None:
    """Raises OSError where the other side has ended, or does not read."""
    socket.send_fds(stream, encode(message), [] if descriptor is None else [descriptor])


@contextlib.contextmanager
def receive(stream: socket.socket, kinds: dict[str, type]) -> Iterator[tuple[Any, int | None]]:
    """The next message and the descriptor that came with it, open until the end of the `with`; None at the stream's.

    Raises PeerError where what has come makes no sense, OSError where nothing has come yet and the stream does not
    wait.
    """
    descriptors: list[int] = []
    try:
        try:
            frame, descriptors, _, _ = socket.recv_fds(stream, HEADER_LIMIT + 1, 1)
        except ConnectionResetError:
            # It has ended with something of ours unread.
            frame = b""
        yield (decode([frame], kinds) if frame else None), (descriptors[0] if descriptors else None)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def needs(descriptor: int | None) -> int:
    """The descriptor that a message has to come with. Raises PeerError where it has none."""
    if descriptor is None:
        raise PeerError("malformed", "the message came without a descriptor")
    return descriptor
