"""What every socket of the protocol has in common: options and receiving with limits. Used by server.py and client.py alone."""

from typing import Any

import zmq

from ps_vae.errors import PeerError, UsageError
from ps_vae.ps.frames import HEADER_LIMIT

__all__ = ["check_address", "close", "configure", "receive", "send"]

# A message never has more frames than a snapshot: header, weights, and an optimizer's arrays.
_MAX_FRAMES = 19
_HEARTBEAT_MILLISECONDS = 2_000
_DEAD_MILLISECONDS = 15_000


def configure(socket: zmq.Socket[bytes], frame_limit: int) -> None:
    """Bounded frames, no lingering, dead peers noticed. frame_limit: bytes of the largest tensor that may come."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, max(frame_limit, HEADER_LIMIT))
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MILLISECONDS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_MILLISECONDS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
    socket.setsockopt(zmq.IPV6, 1)


def receive(socket: zmq.Socket[bytes]) -> list[zmq.Frame]:
    """The frames of one message, not copied; PeerError where there are too many, which are read and thrown away.

    Raises zmq.Again where there is no message.
    """
    frames = [socket.recv(zmq.NOBLOCK, copy=False)]
    surplus = 0
    while frames[-1].more if not surplus else socket.getsockopt(zmq.RCVMORE):
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        if len(frames) <= _MAX_FRAMES:
            frames.append(frame)
        else:
            surplus += 1
    if surplus:
        raise PeerError("malformed", f"{len(frames) + surplus} frames, at most {_MAX_FRAMES} are expected")
    return frames


def send(socket: zmq.Socket[bytes], frames: list[Any]) -> zmq.MessageTracker | None:
    """Send without blocking; tensors are not copied, and the tracker says when the last of them is read.

    Raises zmq.Again where the peer is not there or does not read, zmq.ZMQError(EHOSTUNREACH) where a ROUTER's peer is gone.
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


def check_address(address: str) -> None:
    """UsageError where ZeroMQ would not understand the address."""
    if not address.startswith(("tcp://", "ipc://")):
        raise UsageError(f"{address!r} is not an address; write tcp://HOST:PORT or ipc://PATH")
    if address.startswith("ipc://") and len(address) > 6 + 107:
        raise UsageError(f"{address!r} is longer than the 107 characters that a socket's path may have")


def close(socket: zmq.Socket[bytes], *, linger_seconds: float) -> None:
    """Close, giving what was sent last so long to leave."""
    socket.close(linger=round(1000 * linger_seconds))
