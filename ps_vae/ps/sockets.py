"""What every socket of the protocol has in common: options, sending without blocking, receiving with limits."""

import contextlib
import ctypes
import os
import socket as unix
from typing import Any

import numpy as np
import zmq

from ps_vae.errors import UsageError
from ps_vae.ps.frames import HEADER_LIMIT
from ps_vae.ps.record import record

__all__ = [
    "MAX_FRAMES",
    "Origin",
    "check_address",
    "close",
    "configure",
    "configure_router",
    "is_served",
    "receive",
    "receive_from",
    "receive_from_known",
    "remove_socket_file",
    "send",
    "socket_file",
]

# No message has more frames than a snapshot after a routing id: id, header, weights, 16 arrays of an optimizer.
MAX_FRAMES = 19
# Of one peer of a server: messages that wait to be sent; and those that wait to be read, more than a client says in a
# minute to a server that is busy. Where there are as many, and the peer hangs up, the next word that ZeroMQ itself has
# to say to it aborts the process (zeromq/libzmq#4364).
_TO_BE_SENT = 64
_TO_BE_READ = 256
_HEARTBEAT_MILLISECONDS = 2_000
_DEAD_MILLISECONDS = 6_000
_HANDSHAKE_MILLISECONDS = 5_000
_KEEPALIVE_SECONDS = 5
# The kernel tries for minutes, less and less often; where a host is back it is to be found at once.
_CONNECT_MILLISECONDS = 3_000


@record
class Origin:
    """Where a message came from.

    public      the key that the doorkeeper has let the sender in with; None where it has not
    descriptor  of the connection
    """

    sender: bytes
    public: str | None
    descriptor: int


def configure(socket: zmq.Socket[bytes], frame_limit: int) -> None:
    """A client's: bounded frames, no lingering, dead peers noticed, on both sides: it is the client that sends
    heartbeats, and they say for how long the server may be without. frame_limit: bytes of the largest tensor that may
    come.
    """
    _bound(socket, frame_limit)
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MILLISECONDS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_MILLISECONDS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, _DEAD_MILLISECONDS)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_MILLISECONDS)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    # Not longer: who starts a server is waited for by all who started before it.
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 250)


def configure_router(socket: zmq.Socket[bytes], frame_limit: int) -> None:
    """A server's: bounded frames and queues, no lingering; it says where a peer is not there.

    Heartbeats of its own would abort it while it closes (zeromq/libzmq#4364).
    """
    _bound(socket, frame_limit)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, _TO_BE_SENT)
    socket.setsockopt(zmq.RCVHWM, _TO_BE_READ)
    # Of peers that promise no heartbeats: where their hosts are gone the kernel finds out.
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_SECONDS)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE_SECONDS)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)


def _bound(socket: zmq.Socket[bytes], frame_limit: int) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, max(frame_limit, HEADER_LIMIT))
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MILLISECONDS)
    socket.setsockopt(zmq.IPV6, 1)


def receive(socket: zmq.Socket[bytes]) -> list[Any]:
    """The frames of one message: the first as bytes, the others, which may be large, as buffers that are not copied.

    Of more than any message has, the surplus is read and thrown away: what is left is too many to be accepted.
    Raises zmq.Again where there is no message.
    """
    frames: list[Any] = [socket.recv(zmq.NOBLOCK)]
    while socket.rcvmore:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        if len(frames) <= MAX_FRAMES:
            frames.append(_writable(frame))
    return frames


def _writable(frame: zmq.Frame) -> memoryview:
    """The frame's memory, which is ours alone, without the mark that it is not to be written to.

    Kernels are compiled for arrays that may be; for others they would have to be compiled once more, or copy.
    """
    marked = np.frombuffer(frame.buffer, np.uint8)
    if marked.size == 0:
        return frame.buffer
    memory = (ctypes.c_ubyte * marked.size).from_address(marked.ctypes.data)
    # As long as anybody sees the memory.
    memory.frame = frame  # type: ignore[attr-defined]
    return memoryview(memory).cast("B")


def receive_from(router: zmq.Socket[bytes]) -> tuple[bytes, list[Any]]:
    """The sender of a message, and its frames as `receive` gives them."""
    sender = router.recv(zmq.NOBLOCK)
    return sender, receive(router) if router.rcvmore else []


def receive_from_known(router: zmq.Socket[bytes], *, has_keys: bool) -> tuple[Origin, list[Any]]:
    """The same, with what is known of the sender's connection."""
    sender = router.recv(zmq.NOBLOCK, copy=False)
    origin = Origin(sender.bytes, _public(sender) if has_keys else None, int(sender.get(zmq.SRCFD)))
    return origin, receive(router) if router.rcvmore else []


def _public(sender: zmq.Frame) -> str | None:
    try:
        return str(sender.get("User-Id"))
    except zmq.ZMQError:
        # The connection has no such property.
        return None


def send(socket: zmq.Socket[bytes], frames: list[Any]) -> zmq.MessageTracker | None:
    """Send without blocking; tensors are not copied, and the tracker says when the last of them is read.

    Raises zmq.Again where the peer is not there or does not read, zmq.ZMQError(EHOSTUNREACH) where a ROUTER's peer is
    gone.
    """
    tracker: zmq.MessageTracker | None = None
    *first, last = frames
    for frame in first:
        is_tensor = isinstance(frame, memoryview)
        sent = socket.send(frame, zmq.SNDMORE | zmq.NOBLOCK, copy=not is_tensor, track=is_tensor)
        tracker = zmq.MessageTracker(tracker, sent) if tracker and sent else sent or tracker
    is_tensor = isinstance(last, memoryview)
    sent = socket.send(last, zmq.NOBLOCK, copy=not is_tensor, track=is_tensor)
    return zmq.MessageTracker(tracker, sent) if tracker and sent else sent or tracker


def check_address(address: str, *, is_bound: bool = False) -> None:
    """UsageError where ZeroMQ would not understand the address; one that is bound may have wildcards."""
    if address.startswith("tcp://"):
        host, _, port = address[6:].rpartition(":")
        is_port = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
        if not host or not (is_port or (is_bound and port == "*")) or (host == "*" and not is_bound):
            raise UsageError(f"{address!r} is not an address; write tcp://HOST:PORT, PORT from 1 to 65535")
    elif not address.startswith("ipc://") or len(address) == 6:
        raise UsageError(f"{address!r} is not an address; write tcp://HOST:PORT or ipc://PATH")
    elif len(address) > 6 + 107:
        raise UsageError(f"{address!r} is longer than the 107 characters that a socket's path may have")


def is_served(address: str) -> bool:
    """Whether somebody listens at an ipc address; ZeroMQ would take it away without a word."""
    if not address.startswith("ipc:///"):
        return False
    with unix.socket(unix.AF_UNIX, unix.SOCK_STREAM) as probe:
        return probe.connect_ex(address[6:]) == 0


def socket_file(address: str) -> tuple[int, int] | None:
    """Device and inode of the file that a socket bound at an ipc address has; None where it has none."""
    try:
        about = os.stat(address.removeprefix("ipc://")) if address.startswith("ipc://") else None
    except OSError:
        # One with an abstract name.
        about = None
    return None if about is None else (about.st_dev, about.st_ino)


def remove_socket_file(address: str, file: tuple[int, int]) -> None:
    """Remove what ZeroMQ leaves behind where a socket was bound, unless another socket is bound there meanwhile."""
    if socket_file(address) == file:
        # A folder that others clean up, or that is not ours any more, is no reason to fail at the end.
        with contextlib.suppress(OSError):
            os.unlink(address.removeprefix("ipc://"))


def close(socket: zmq.Socket[bytes], *, linger_seconds: float) -> None:
    """Close, giving what was sent last so long to leave."""
    socket.close(linger=round(1000 * linger_seconds))
