"""One DEALER connection to a server that knows whether the server is there."""

import time
from collections.abc import Iterator
from typing import Any

import zmq
import zmq.utils.monitor

from ps_vae.errors import PeerError
from ps_vae.ps import sockets
from ps_vae.ps.frames import decode, encode
from ps_vae.ps.messages import TO_CLIENT

__all__ = ["Connection"]

# A client trusts its server with memory: 8 GiB, two thousand million weights a shard.
_FRAME_LIMIT = 1 << 33


class Connection:
    """A connection that is made again by itself whenever it breaks.

    While the server is not there one message waits for it, and the rest are dropped: the state machines repeat what is
    not answered. What had come before a connection broke can still be read.
    """

    def __init__(self, address: str, context: zmq.Context[Any] | None = None) -> None:
        sockets.check_address(address)
        self.address = address
        self._own_context = None if context is not None else zmq.Context()
        context = context or self._own_context or zmq.Context()
        self._socket = context.socket(zmq.DEALER)
        sockets.configure(self._socket, _FRAME_LIMIT)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._down_since: float | None = time.monotonic()
        self._one_waits = False
        self._socket.connect(address)

    def register(self, poller: zmq.Poller) -> None:
        """Wake the poller when there is something to read here."""
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)

    def seconds_down(self) -> float:
        """For how long nobody has been there; 0 while somebody is."""
        self._watch()
        return 0.0 if self._down_since is None else time.monotonic() - self._down_since

    def send(self, message: Any) -> zmq.MessageTracker | None:
        """Send, or drop where nobody is there. The tracker says when the tensors have been read."""
        if self._down_since is not None:
            self._watch()
        if self._down_since is not None and self._one_waits:
            return None
        self._one_waits = self._down_since is not None
        try:
            return sockets.send(self._socket, encode(message))
        except zmq.Again:
            return None

    def messages(self, seconds: float) -> Iterator[Any]:
        """What has come, waiting up to `seconds` for the first. Payloads are views of the received frames.

        Raises PeerError where the server breaks the protocol.
        """
        self._watch()
        if seconds and not self._socket.poll(round(1000 * seconds)):
            return
        while True:
            try:
                frames = sockets.receive(self._socket)
            except zmq.Again:
                return
            yield self._decode(frames)

    def close(self, linger_seconds: float) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        sockets.close(self._socket, linger_seconds=linger_seconds)
        if self._own_context is not None:
            self._own_context.term()

    def _decode(self, frames: list[zmq.Frame]) -> Any:
        try:
            return decode([frame.buffer for frame in frames], TO_CLIENT)
        except PeerError as error:
            raise PeerError(error.code, f"{self.address} does not speak our protocol: {error}") from None

    def _watch(self) -> None:
        while self._monitor.poll(0):
            event = zmq.utils.monitor.recv_monitor_message(self._monitor)
            if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._down_since = None
            elif self._down_since is None:
                self._down_since = time.monotonic()
