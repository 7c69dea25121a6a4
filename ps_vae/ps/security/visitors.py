"""With which key each peer of a server has come in, and what it may say. No sockets, no clock.

message                            may be said by
join, applied, snapshot, standby,  the servers' key
follow, replicated
hello                              any allowed key; the session is that key's from then on
ready, trouble, report, bye        the key that opened the session
push with a permit                 the same, where this server has heard its hello
everything else                    any allowed key

A server without keys takes everything from everybody.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, TypeVar

from ps_vae.errors import PeerError
from ps_vae.ps.messages import (
    Applied,
    Bye,
    Follow,
    Hello,
    Join,
    Present,
    Push,
    Ready,
    Replicated,
    Report,
    Snapshot,
    Standby,
    Trouble,
)
from ps_vae.ps.outbox import Sender
from ps_vae.ps.security.keys import ServerKeys

__all__ = ["Visitors"]

_SERVERS_WORDS = (Join, Applied, Present, Snapshot, Standby, Follow, Replicated)
_SESSIONS_WORDS = (Hello, Ready, Trouble, Report, Bye)
# Of senders, and of sessions, that are remembered: the ones that were heard of last.
_MOST = 1 << 14

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Visitors:
    """Whoever has come in.

    Invariant: a sender that was returned by `revoked` is refused by `came` for as long as its key is not allowed.
    """

    def __init__(self, keys: ServerKeys | None) -> None:
        self._keys = keys
        self._senders: OrderedDict[Sender, str] = OrderedDict()
        self._sessions: OrderedDict[bytes, str] = OrderedDict()

    @property
    def are_known(self) -> bool:
        """Whether they have keys at all."""
        return self._keys is not None

    def came(self, sender: Sender, public: str | None) -> None:
        """A message has come over a connection with this key. PeerError (`revoked`) where it is not allowed (any more).

        Where a message comes by another way, in shared memory, the key is None: it is that which the sender had before.
        """
        if self._keys is None:
            return
        public = public or self._senders.get(sender)
        if public is None or self._keys.admits(public) is None:
            raise PeerError("revoked", "your key is not allowed here any more; ask who runs the server")
        _remember(self._senders, sender, public)

    def check(self, sender: Sender, message: Any) -> None:
        """PeerError (`wrong-key`) where it is not for the sender's key to say that."""
        if self._keys is None:
            return
        public = self._senders.get(sender)
        if isinstance(message, _SERVERS_WORDS):
            if public != self._keys.own.public:
                raise PeerError("wrong-key", f"{message.KIND!r} is for servers to say, with the servers' key")
        elif isinstance(message, _SESSIONS_WORDS) and public is not None:
            owner = self._sessions.get(message.session)
            if owner not in (None, public):
                raise PeerError("wrong-key", "this session was opened with another key")
            if owner is not None or isinstance(message, Hello):
                _remember(self._sessions, message.session, public)
        elif isinstance(message, Push) and message.permit is not None and self._is_others(message.session, public):
            raise PeerError("wrong-key", "this session was opened with another key")

    def revoked(self) -> list[Sender]:
        """Those whose keys are not allowed any more, once."""
        if self._keys is None:
            return []
        keys = self._keys
        gone = {public for public in set(self._senders.values()) if keys.admits(public) is None}
        senders = [sender for sender, public in self._senders.items() if public in gone]
        for sender in senders:
            del self._senders[sender]
        return senders

    def _is_others(self, session: bytes, public: str | None) -> bool:
        return self._sessions.get(session, public) != public


def _remember(known: OrderedDict[K, V], name: K, value: V) -> None:
    known[name] = value
    known.move_to_end(name)
    if len(known) > _MOST:
        known.popitem(last=False)
