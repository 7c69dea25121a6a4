"""One DEALER connection to a server that knows whether the server is there."""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import zmq
import zmq.utils.monitor

from ps_vae.errors import PeerError, PsVaeError, RefusedError, Unreachable
from ps_vae.ps import sockets
from ps_vae.ps.frames import HEADER_LIMIT, pack, unpack
from ps_vae.ps.messages import TO_CLIENT, Meet, Share
from ps_vae.ps.security.approach import Approach
from ps_vae.ps.security.door import failure_of, use_keys, use_no_keys
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.ps.sharing.meeting import Invitation, come
from ps_vae.ps.sharing.segment import Segment
from ps_vae.ps.sharing.sharing import Sharing

__all__ = ["Connection"]

# A client trusts its server with memory: 8 GiB, two thousand million weights a shard.
_FRAME_LIMIT = 1 << 33
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class Connection:
    """A connection that is made again by itself whenever it breaks.

    While the server is not there one message waits for it, and the rest are dropped: the state machines repeat what is
    not answered. What had come before a connection broke can still be read.

    keys  what is shown to the server; None: nothing, and everything is said in the clear
    """

    def __init__(
        self, address: str, context: zmq.Context[Any] | None = None, *, keys: ClientKeys | None = None
    ) -> None:
        sockets.check_address(address)
        self.address = address
        self._approach = Approach(address, keys)
        self.shares: bool | None = None
        self._own_context = None
        if context is None:
            context = self._own_context = zmq.Context()
        self._socket = context.socket(zmq.DEALER)
        sockets.configure(self._socket, _FRAME_LIMIT)
        self._show_keys()
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        self._down_since: float | None = time.monotonic()
        self._one_waits = False
        self._waiting: Sequence[Any] = ()
        self._poller: zmq.Poller | None = None
        self._wants_sharing = False
        self._client = os.urandom(16)
        self._segment: Segment | None = None
        self._sharing: Sharing | None = None
        self._socket.connect(address)

    def register(self, poller: zmq.Poller) -> None:
        """Wake the poller when there is something to read here."""
        self._poller = poller
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        if self._sharing is not None:
            poller.register(self._sharing.fileno(), zmq.POLLIN)

    def share(self, segment: Segment | None) -> None:
        """Read the server's tensors where they lie, and let it read those of `segment`, if it is on this host.

        It is asked now and after each time that the connection was made again. `shares` says how it went: None as
        long as there is no answer.
        """
        self._wants_sharing, self._segment = True, segment
        if self._down_since is None:
            self._ask_to_share()

    def watch(self, ready: Collection[Any] | None = None) -> None:
        """Notice that the server has come or gone; `ready` are the sockets that a poller found something in."""
        if ready is None or self._monitor in ready or self._approach.knock_at is not None:
            self._watch()

    @property
    def seconds_down(self) -> float:
        """For how long nobody has been there, by what `watch` has noticed; 0 while somebody is."""
        return 0.0 if self._down_since is None else time.monotonic() - self._down_since

    @property
    def keys(self) -> ClientKeys | None:
        """What is shown to the server."""
        return self._approach.keys

    @property
    def refusal(self) -> str:
        """Why the server did not let us in when it was there last; "" where it did, or never was there."""
        return self._approach.refusal[1] if self._approach.refusal is not None else ""

    def absence(self, timeout: float) -> PsVaeError:
        """The error of nobody's having answered for so long, with the reason where there is one."""
        if self._approach.refusal is not None:
            return RefusedError(*self._approach.refusal)
        return Unreachable(f"no server answered at {self.address} within {timeout:g} s")

    def send(self, messages: Sequence[Any]) -> Callable[[], bool] | None:
        """Send, all at once, or drop where nobody is there.

        At most one of the messages has tensors. Returns what says when these have been read; None where they have been.
        """
        if self._down_since is not None:
            self._watch()
        if self._down_since is not None and self._one_waits:
            return None
        self._one_waits = self._down_since is not None
        sharing = self._sharing
        frames, lent = pack(messages, sharing.lend if sharing is not None else None)
        # What is in tensors may be another's by the time that they could be sent again.
        self._waiting = messages if self._one_waits and len(frames) == 1 else ()
        if sharing is not None and len(frames) == 1:
            sharing.send(frames[0], lent)
            return sharing.reader(lent[0]) if lent else None
        try:
            tracker = sockets.send(self._socket, frames)
        except zmq.Again:
            return None
        return None if tracker is None or tracker.done else lambda: bool(tracker.done)

    def messages(self, ready: Collection[Any] | None = None) -> Iterator[Any]:
        """What has come; `ready` are the sockets that a poller found something in. Payloads are views of what came.

        Raises PeerError where the server breaks the protocol.
        """
        for frames in self._received(ready):
            for message in self._unpack(frames):
                if isinstance(message, Meet):
                    self._meet(message)
                else:
                    yield message

    def wait(self, seconds: float) -> None:
        """Until something has come that is not in shared memory, or so long."""
        self._watch()
        self._socket.poll(round(1000 * seconds))

    def close(self, linger_seconds: float) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._sharing = None
        sockets.close(self._socket, linger_seconds=linger_seconds)
        if self._own_context is not None:
            self._own_context.term()

    def _received(self, ready: Collection[Any] | None) -> Iterator[list[Any]]:
        """The frames of what has come on either way: of the stream one message, for a poller will say when there are
        more, and every look in vain costs time that others wait."""
        sharing = self._sharing
        if sharing is not None and (ready is None or sharing.fileno() in ready):
            frame = sharing.receive(HEADER_LIMIT + 1)
            if frame:
                yield [frame]
            elif frame is not None:
                self._end_sharing()
                if self._down_since is None:
                    self._ask_to_share()
        if ready is not None and self._socket not in ready:
            return
        while True:
            try:
                yield sockets.receive(self._socket)
            except zmq.Again:
                return

    def _unpack(self, frames: list[Any]) -> list[Any]:
        borrow = self._sharing.borrow if self._sharing is not None else None
        try:
            return unpack(frames, TO_CLIENT, borrow)
        except PeerError as error:
            if error.code == "not-shared":
                # Of a connection that has broken since: as good as lost.
                return []
            raise PeerError(error.code, f"{self.address} does not speak our protocol: {error}") from None

    def _meet(self, meet: Meet) -> None:
        # Held until there is the next: should the stream end before, the server would take us for gone.
        before = self._sharing
        self._end_sharing()
        try:
            self._sharing = come(Invitation(meet.name, meet.word), self._client, self._segment) if meet.name else None
        except TimeoutError:
            self._ask_to_share()
            return
        finally:
            del before
        self.shares = self._sharing is not None
        if self._sharing is not None and self._poller is not None:
            self._poller.register(self._sharing.fileno(), zmq.POLLIN)

    def _ask_to_share(self) -> None:
        """Through ZeroMQ, so that the server learns by what name it knows us there."""
        with contextlib.suppress(zmq.Again):
            sockets.send(self._socket, pack([Share()])[0])

    def _end_sharing(self) -> None:
        if self._sharing is not None and self._poller is not None:
            self._poller.unregister(self._sharing.fileno())
        self._sharing = None

    def _watch(self) -> None:
        while self._monitor.poll(0):
            event = zmq.utils.monitor.recv_monitor_message(self._monitor)
            if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._down_since = None
                self._approach.opened()
                # The server knows us by another name now, and what it says to the old one on the old stream is lost.
                self._end_sharing()
                if self._wants_sharing:
                    self._ask_to_share()
            elif event["event"] != zmq.EVENT_DISCONNECTED:
                self._approach.failed(failure_of(event["event"], event["value"]), time.monotonic())
            elif self._down_since is None:
                # What is in shared memory, and in its stream, can be read until that ends too.
                self._down_since = time.monotonic()
        if self._approach.knock_at is not None and time.monotonic() >= self._approach.knock_at:
            self._knock()

    def _knock(self) -> None:
        """Connect again, perhaps with other keys or with none. ZeroMQ has thrown away what had waited."""
        self._approach.knock_at, self._one_waits = None, False
        self._show_keys()
        with contextlib.suppress(zmq.ZMQError):
            # ZeroMQ may have forgotten the address with the refusal.
            self._socket.disconnect(self.address)
        self._socket.connect(self.address)
        if self._waiting:
            with contextlib.suppress(zmq.Again):
                sockets.send(self._socket, pack(self._waiting)[0])
            self._one_waits = True

    def _show_keys(self) -> None:
        if self._approach.keys is not None:
            use_keys(self._socket, self._approach.keys)
        else:
            use_no_keys(self._socket)
