"""How two processes of one host begin to share memory.

    client          -> server, ZeroMQ   share
    server          -> client, ZeroMQ   meet (name, word): come to this local socket, and say this word
    client connects to the name, which only exists where both are on one host and in one network

    client -> server   word 16 bytes, client 16 bytes, slots uint32, size uint64    and its segment's descriptor, if any
    server -> client   number uint32, slots uint32, size uint64                     and the segment's and the ledger's

The name is an abstract address of a Unix socket (Linux): it is in no folder and is gone with its process. Everybody on
the host can list and connect to it, so the kernel is asked who connected, and only our own user's processes that know
their word are heard.
"""

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from ps_vae.errors import PeerError
from ps_vae.ps.record import record
from ps_vae.ps.sharing.ledger import MAX_SLOTS, Ledger
from ps_vae.ps.sharing.segment import Segment
from ps_vae.ps.sharing.sharing import Sharing

__all__ = ["Invitation", "Meeting", "come"]

_HELLO = struct.Struct("<16s16sIQ")
_ANSWER = struct.Struct("<IIQ")
_CREDENTIALS = struct.Struct("iII")
# An invited client comes at once or not at all.
_PATIENCE_SECONDS = 5.0
_ANSWER_SECONDS = 2.0
_MOST = 256
"""Sharings of one server, and clients that wait for one."""
# More messages than fit into a stream.
_MOST_LEFT = 1_024


@record
class Invitation:
    """Where to come and what to say there."""

    name: bytes
    word: bytes


@dataclass(slots=True)
class _Guest:
    """A client that has a sharing."""

    sender: Hashable
    client: bytes
    sharing: Sharing


class Meeting:
    """A server's side: it invites clients and shares `segment` with those that come.

    limit  bytes of the longest message that is taken whole

    Poll its `fileno` for reading, and call `attend` when there is something.
    """

    def __init__(self, segment: Segment, limit: int) -> None:
        self._segment = segment
        self._limit = limit
        self._name = b"\0ps-vae-" + os.urandom(16).hex().encode()
        self._words: dict[bytes, tuple[Hashable, float]] = {}
        self._guests: dict[int, _Guest] = {}
        self._arriving: dict[int, tuple[socket.socket, float]] = {}
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.setblocking(False)
        self._door.bind(self._name)
        self._door.listen(64)
        self._events = select.epoll()
        self._events.register(self._door.fileno(), select.EPOLLIN)
        self._numbers = int.from_bytes(os.urandom(4), "little")

    def fileno(self) -> int:
        return self._events.fileno()

    def invite(self, sender: Hashable) -> Invitation:
        """For the client at the other end of `sender`."""
        now = time.monotonic()
        self._words = {word: known for word, known in self._words.items() if known[1] > now and known[0] != sender}
        while len(self._words) >= _MOST:
            self._words.pop(next(iter(self._words)))
        word = os.urandom(16)
        self._words[word] = (sender, now + _PATIENCE_SECONDS)
        return Invitation(self._name, word)

    def attend(self) -> list[tuple[Hashable, Sharing, bytes | None]]:
        """What has happened: who has come, with an empty message; who says what; and who has gone, with None."""
        news: list[tuple[Hashable, Sharing, bytes | None]] = []
        for descriptor, _ in self._events.poll(0):
            # It may have been let go of meanwhile.
            if (guest := self._guests.get(descriptor)) is not None:
                frame = guest.sharing.receive(self._limit)
                if frame is not None:
                    news.append((guest.sender, guest.sharing, frame or None))
                if frame == b"":
                    self._forget(descriptor)
            elif descriptor == self._door.fileno():
                self._let_in()
            elif descriptor in self._arriving:
                found = self._greet(descriptor)
                news += [] if found is None else [(*found, b"")]
        return news

    def senders(self) -> set[Hashable]:
        """Those whose sharings last."""
        return {guest.sender for guest in self._guests.values()}

    def dismiss(self, sender: Hashable) -> list[tuple[Sharing, bytes]]:
        """Nobody is reached at the other end of `sender` any more: end its sharing, so that its process notices.

        Returns what it had said and was not taken yet.
        """
        left: list[tuple[Sharing, bytes]] = []
        for descriptor, guest in list(self._guests.items()):
            if guest.sender == sender:
                self._forget(descriptor)
                guest.sharing.end()
                left += [(guest.sharing, frame) for frame in self._rest(guest.sharing)]
        return left

    def close(self) -> None:
        """End every sharing: those who go on at this address with another server will ask it for one."""
        for guest in self._guests.values():
            guest.sharing.end()
        self._guests.clear()
        for stream, _ in self._arriving.values():
            stream.close()
        self._door.close()
        self._events.close()
        self._segment.close()

    def _let_in(self) -> None:
        try:
            stream, _ = self._door.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # Who knocks and cannot be let in would be heard of in every poll: from now on they go on without.
                self._events.unregister(self._door.fileno())
                self._door.close()
            return
        now = time.monotonic()
        for descriptor, (late, until) in list(self._arriving.items()):
            if until < now:
                self._dismiss(descriptor, late)
        _, user, _ = _CREDENTIALS.unpack(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if user != os.geteuid() or len(self._arriving) + len(self._guests) >= _MOST:
            stream.close()
            return
        stream.setblocking(False)
        self._arriving[stream.fileno()] = (stream, now + _PATIENCE_SECONDS)
        self._events.register(stream.fileno(), select.EPOLLIN)

    def _greet(self, descriptor: int) -> tuple[Hashable, Sharing] | None:
        stream, _ = self._arriving.pop(descriptor)
        descriptors: list[int] = []
        try:
            hello, descriptors, _, _ = socket.recv_fds(stream, _HELLO.size, 1)
            word, client, slots, size = _HELLO.unpack(hello)
            sender, until = self._words.pop(word)
            if until < time.monotonic():
                raise PeerError("not-shared", "too late")
            self._numbers = (self._numbers + 1) & 0xFFFFFFFF
            theirs = _open(descriptors, slots, size)
            sharing = self._share(stream, theirs)
        except (OSError, ValueError, struct.error, KeyError, PeerError):
            # It goes on without, and who comes with a wrong word hears nothing.
            self._dismiss(descriptor, stream)
            return None
        finally:
            for received in descriptors:
                os.close(received)
        for number in [key for key, guest in self._guests.items() if guest.client == client]:
            self._forget(number)
        self._guests[descriptor] = _Guest(sender, client, sharing)
        return sender, sharing

    def _share(self, stream: socket.socket, theirs: Segment | None) -> Sharing:
        page = Ledger.create()
        try:
            with self._segment.readable() as mine:
                answer = _ANSWER.pack(self._numbers, self._segment.slots, self._segment.size)
                socket.send_fds(stream, [answer], [mine, page])
            return Sharing(self._numbers, 0, stream, self._segment, theirs, Ledger(page))
        finally:
            os.close(page)

    def _rest(self, sharing: Sharing) -> Iterator[bytes]:
        for _ in range(_MOST_LEFT):
            frame = sharing.receive(self._limit)
            if not frame:
                return
            yield frame

    def _forget(self, descriptor: int) -> None:
        """The stream stays open for as long as an array of it is in use."""
        self._events.unregister(descriptor)
        del self._guests[descriptor]

    def _dismiss(self, descriptor: int, stream: socket.socket) -> None:
        self._arriving.pop(descriptor, None)
        self._events.unregister(descriptor)
        stream.close()


def come(invitation: Invitation, client: bytes, segment: Segment | None) -> Sharing | None:
    """Accept a server's invitation: share `segment` with it. None where it is on another host, or refuses.

    client  16 bytes that stay the same for one client; a later sharing of it takes the place of an earlier one

    Raises PeerError where what it hands over cannot be trusted, TimeoutError where it is there and does not answer.
    """
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptors: list[int] = []
    try:
        stream.settimeout(_ANSWER_SECONDS)
        stream.connect(invitation.name)
        _, user, _ = _CREDENTIALS.unpack(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if user != os.geteuid():
            stream.close()
            return None
        if segment is None:
            stream.send(_HELLO.pack(invitation.word, client, 0, 0))
        else:
            with segment.readable() as mine:
                hello = _HELLO.pack(invitation.word, client, segment.slots, segment.size)
                socket.send_fds(stream, [hello], [mine])
        answer, descriptors, _, _ = socket.recv_fds(stream, _ANSWER.size, 2)
        number, slots, size = _ANSWER.unpack(answer)
        theirs = _open(descriptors[:1], slots, size)
        return Sharing(number, 1, stream, segment, theirs, Ledger(descriptors[1]))
    except (TimeoutError, BlockingIOError):
        # A full queue at its door is no answer either.
        stream.close()
        raise TimeoutError("the server does not answer at the door to its memory") from None
    except (OSError, ValueError, struct.error, IndexError):
        stream.close()
        return None
    except BaseException:
        stream.close()
        raise
    finally:
        for received in descriptors:
            os.close(received)


def _open(descriptors: list[int], slots: int, size: int) -> Segment | None:
    if not descriptors:
        return None
    if not 0 < slots <= MAX_SLOTS:
        raise PeerError("bad-segment", f"a segment of {slots} slots; there may be {MAX_SLOTS}")
    return Segment.open(descriptors[0], slots, size)
