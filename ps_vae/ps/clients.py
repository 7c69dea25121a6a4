"""The clients of a server as its sockets know them: parcels in and out, and the memory that some of them share."""

import errno
from collections.abc import Collection, Iterator
from typing import Any

import zmq

from ps_vae.errors import PeerError
from ps_vae.ps import sockets
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.frames import HEADER_LIMIT, pack, unpack
from ps_vae.ps.messages import TO_SERVER, Meet, Pull, Push, Replicate, Weights
from ps_vae.ps.outbox import Sender
from ps_vae.ps.parcels import parcels
from ps_vae.ps.security.visitors import Visitors
from ps_vae.ps.sharing.meeting import Meeting
from ps_vae.ps.sharing.segment import Segment
from ps_vae.ps.sharing.sharing import Sharing
from ps_vae.ps.traffic import Traffic

__all__ = ["Clients"]

# Parcels taken between two looks at anything else.
_BURST = 256

# Tensors that wait for one client; what is more than that is dropped, and it asks again.
_MOST_UNREAD = 8
_MANY = 1_024

# Whose bytes are counted.
_EXCHANGED = (Push, Pull)


class Clients:
    """Whoever sends to a ROUTER, known by routing id.

    segment   the memory that published weights lie in, shared with the clients on this host
    weights   the pool that published weights come from, which has to know who reads them
    traffic   where the bytes of pushes and pulls are counted
    visitors  who has come with which key
    """

    def __init__(
        self,
        router: zmq.Socket[bytes],
        segment: Segment | None,
        weights: Buffers,
        traffic: Traffic,
        visitors: Visitors | None = None,
    ) -> None:
        self._router = router
        self._visitors = visitors or Visitors(None)
        self._weights = weights
        self._traffic = traffic
        self._meeting = Meeting(segment, HEADER_LIMIT + 1) if segment is not None else None
        self._sharings: dict[Sender, Sharing] = {}
        self._heard: list[tuple[Sender, Sharing, bytes]] = []
        self._unread: dict[Sender, list[zmq.MessageTracker]] = {}
        self._spoken: set[int] = set()

    def register(self, poller: zmq.Poller) -> None:
        """Wake the poller when there is something to do here."""
        poller.register(self._router, zmq.POLLIN)
        if self._meeting is not None:
            poller.register(self._meeting.fileno(), zmq.POLLIN)

    def received(self, ready: Collection[Any]) -> Iterator[tuple[Sender, list[Any] | PeerError]]:
        """Who has sent what, messages or what is wrong with them; `ready` being what a poller found."""
        heard, self._heard = self._heard, []
        for sender, sharing, frame in heard:
            yield sender, self._unpacked(sender, None, [frame], sharing)
        if self._router not in ready:
            return
        for _ in range(_BURST):
            try:
                origin, frames = sockets.receive_from_known(self._router, has_keys=self._visitors.are_known)
            except zmq.Again:
                return
            self._spoken.add(origin.descriptor)
            known = self._sharings.get(origin.sender)
            yield origin.sender, self._unpacked(origin.sender, origin.public, frames, known)

    def spoken(self) -> set[int]:
        """Descriptors of the connections that messages have come over since this was asked last."""
        spoken, self._spoken = self._spoken, set()
        return spoken

    def watch(self, ready: Collection[Any]) -> list[Sender]:
        """Notice who has come and gone, `ready` being what a poller found; returns whose processes have ended."""
        gone: list[Sender] = []
        if self._meeting is None or self._meeting.fileno() not in ready:
            return gone
        for sender, sharing, frame in self._meeting.attend():
            if frame is None:
                self.forget(sender)
                gone.append(sender)
            elif frame:
                self._heard.append((sender, sharing, frame))
            else:
                # It may have another name from before its connection broke.
                names = self._meeting.senders()
                self._sharings = {name: known for name, known in self._sharings.items() if name in names}
                self._sharings[sender] = sharing
        return gone

    def invite(self, sender: Sender) -> Meet:
        """The answer to a client that wants to share memory."""
        if self._meeting is None:
            return Meet(b"", bytes(16))
        invitation = self._meeting.invite(sender)
        return Meet(invitation.name, invitation.word)

    def send(self, sender: Sender, messages: list[Any]) -> bool:
        """Whether the client is there and reads. Of tensors it misses those for which it is too slow, and asks again;
        one whose queue is full of anything is as good as gone."""
        return all(self._send(sender, parcel) for parcel in parcels(messages))

    def forget(self, sender: Sender) -> None:
        """The sender is gone, or its name is: a process that is still there hears of it, and asks anew.

        What it has said before counts: a gradient of which one shard has its part, and another has not, leaves them
        apart where nobody is there to compute it again.
        """
        self._sharings.pop(sender, None)
        self._unread.pop(sender, None)
        if self._meeting is not None:
            self._heard += [(sender, *said) for said in self._meeting.dismiss(sender)]
        self._weights.let_go()

    def close(self) -> None:
        if self._meeting is not None:
            self._meeting.close()

    def _send(self, sender: Sender, messages: list[Any]) -> bool:
        sharing = self._sharings.get(sender)
        frames, lent = pack(messages, sharing.lend if sharing is not None else None)
        tracker = None
        try:
            if sharing is not None and len(frames) == 1:
                # Where nobody is there any more `watch` says so, after what they have said.
                sharing.send(frames[0], lent)
            elif len(frames) > 1 and self._is_slow(sender):
                return True
            else:
                tracker = sockets.send(self._router, [sender, *frames])
        except zmq.ZMQError as error:
            if error.errno not in (errno.EAGAIN, errno.EHOSTUNREACH):
                raise
            return False
        if tracker is not None and not tracker.done:
            self._note_unread(sender, tracker)
        for message in messages:
            if isinstance(message, Replicate) and tracker is not None and not tracker.done:
                self._weights.hold(message.payload[0], lambda: bool(tracker.done))
            if isinstance(message, Weights):
                (weights,) = message.payload
                shared = weights.nbytes if lent else 0
                self._traffic.pulled += sum(map(len, frames)) + shared
                self._traffic.shared += shared
                if sharing is not None and lent:
                    self._weights.hold(weights, sharing.reader(lent[0]))
                elif tracker is not None and not tracker.done and not message.encoded:
                    self._weights.hold(weights, lambda: bool(tracker.done))
        return True

    def _note_unread(self, sender: Sender, tracker: zmq.MessageTracker) -> None:
        self._unread.setdefault(sender, []).append(tracker)
        if len(self._unread) > _MANY:
            # Most of them are gone, without a word.
            known = {name: [one for one in trackers if not one.done] for name, trackers in self._unread.items()}
            self._unread = {name: trackers for name, trackers in known.items() if trackers}

    def _is_slow(self, sender: Sender) -> bool:
        """Whether as many tensors wait for it as may: versions that cannot be written over as long as they do."""
        unread = [tracker for tracker in self._unread.get(sender, ()) if not tracker.done]
        self._unread[sender] = unread
        return len(unread) >= _MOST_UNREAD

    def _unpacked(
        self, sender: Sender, public: str | None, frames: list[Any], sharing: Sharing | None
    ) -> list[Any] | PeerError:
        try:
            self._visitors.came(sender, public)
            messages = unpack(frames, TO_SERVER, sharing.borrow if sharing is not None else None)
        except PeerError as error:
            return error
        self._count_received(messages, frames)
        return messages

    def _count_received(self, messages: list[Any], frames: list[Any]) -> None:
        exchanged = [message for message in messages if isinstance(message, _EXCHANGED)]
        if not exchanged:
            return
        shared = 0
        if len(frames) == 1:
            shared = sum(
                array.nbytes for message in exchanged if isinstance(message, Push) for array in message.payload
            )
        self._traffic.pushed += sum(map(len, frames)) + shared
        self._traffic.shared += shared
