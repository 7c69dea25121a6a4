"""What comes over each TCP connection of a server, and an end to a message that has none.

ZeroMQ limits the length of a frame (ZMQ_MAXMSGSIZE), not of a message: it holds all frames of one, however many, until
the last has come, and counts whole messages only. So the kernel is asked how many bytes a connection has brought
(tcp_info.tcpi_bytes_received, Linux 4.1): where these are more than any message has, and none has come of them, the
connection is cut, and ZeroMQ lets go of what it held.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Collection, Iterable, Iterator

from ps_vae.ps.record import record

__all__ = ["Cut", "Intake"]

_INFO_BYTES, _RECEIVED_AT = 136, 128
# What encryption and framing add, and what lies between two looks.
_SLACK = 1 << 20
# Heartbeats of both sides, encrypted, are less than that.
_IDLE_BYTES_A_SECOND = 256


@record
class Cut:
    """A connection that was cut: whose it was, and how many bytes it had brought without a message."""

    peer: str
    received: int


class Intake:
    """The open connections of one bound socket, by descriptor.

    limit  bytes of the longest message that may come
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._known: dict[int, _Known] = {}

    def watch(self, opened: Iterable[int], heard: Collection[int]) -> list[Cut]:
        """Look at every connection, a few times a second, after what had come was read; returns those that were cut.

        opened  descriptors of the connections that there are; other than TCP are passed over
        heard   those that a message has come from since the last time
        """
        now = time.monotonic()
        before, self._known = self._known, {}
        cuts: list[Cut] = []
        for descriptor in opened:
            with _borrowed(descriptor) as stream:
                received = None if stream is None else _received(stream)
                if stream is None or received is None:
                    continue
                known = before.get(descriptor, _Known(0, now))
                if descriptor in heard or received < known.received:
                    known = _Known(received, now)
                brought = received - known.received
                if brought <= self.limit + _SLACK + _IDLE_BYTES_A_SECOND * (now - known.at):
                    self._known[descriptor] = known
                elif not known.is_suspect:
                    # What has come may not have been read yet: that is done before the next look.
                    self._known[descriptor] = _Known(known.received, known.at, is_suspect=True)
                else:
                    cuts.append(Cut(_cut(stream), brought))
        return cuts


@record
class _Known:
    """How much a connection had brought when a message of it was heard last, and when that was seen."""

    received: int
    at: float
    is_suspect: bool = False


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket | None]:
    """ZeroMQ's own socket by another descriptor, which stays what it is; None where it was closed meanwhile."""
    try:
        stream = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        yield None
        return
    with stream:
        yield stream


def _received(stream: socket.socket) -> int | None:
    """Bytes that have come over it; None where it is no TCP connection, or the system does not count them."""
    try:
        info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    return int(struct.unpack_from("@Q", info, _RECEIVED_AT)[0]) if len(info) >= _INFO_BYTES else None


def _cut(stream: socket.socket) -> str:
    """End the connection; returns the peer's address."""
    peer = "an unknown address"
    # It may have ended by itself.
    with contextlib.suppress(OSError):
        peer = str(stream.getpeername()[0]).removeprefix("::ffff:")
        stream.shutdown(socket.SHUT_RDWR)
    return peer
