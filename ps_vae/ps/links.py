"""A client's connections: to the coordinator's server and, once they are known, to the shards that are elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import zmq

from ps_vae.errors import RefusedError
from ps_vae.lines import WARNING, Line
from ps_vae.ps.addresses import on_host
from ps_vae.ps.connection import Connection
from ps_vae.ps.messages import Weights
from ps_vae.ps.outbox import Send, ShardAddress
from ps_vae.ps.parcels import parcels
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.ps.sharing.segment import Segment

__all__ = ["Links"]

_TICK_SECONDS = 0.05
_LAST_WORDS_SECONDS = 1.0
# Shorter absences are nobody's business.
_MENTION_SECONDS = 1.0


class Links:
    """One connection a server; the first is the coordinator's, which mostly has a shard too.

    say      told once whenever a server is not there
    timeout  seconds without one of the servers after which `wait` raises Unreachable, or RefusedError where it is there
             but does not let us in
    keys     what is shown to the servers, if anything
    """

    def __init__(
        self, address: str, say: Callable[[str], None], timeout: float, keys: ClientKeys | None = None
    ) -> None:
        self._context = zmq.Context()
        self._say = say
        self._timeout = timeout
        self._waiting = False
        self._refusal = ""
        self._insists = self._shares = False
        self._segment: Segment | None = None
        self._ready: dict[Any, int] = {}
        self._poller = zmq.Poller()
        self._links = [Connection(address, self._context, keys=keys)]
        self._links[0].register(self._poller)
        # Of each shard, and of each link: None where that is the coordinator's.
        self._link_of: list[int] = []
        self._shard_of: list[int | None] = [None]

    def open_shards(self, addresses: Sequence[str]) -> None:
        """Connect to the shards. An empty address is the coordinator's server, which is connected."""
        for link in self._links[1:]:
            link.close(0.0)
        del self._links[1:]
        self._arrange(addresses, {})

    def move_shards(self, addresses: Sequence[str]) -> None:
        """Connect to those shards that are somewhere else now; what is to be shared is shared with them too."""
        known = {link.address: link for link in self._links[1:]}
        self._arrange(addresses, known)
        for link in known.values():
            if link not in self._links:
                link.close(0.0)
        for link in self._links[1:]:
            if self._shares and link.address not in known:
                link.share(self._segment)

    def share(self, segment: Segment | None, *, insists: bool) -> None:
        """Share memory with every server on this host; `insists`: RefusedError, from `wait`, where one is not."""
        self._insists, self._shares, self._segment = insists, True, segment
        for link in self._links:
            link.share(segment)

    def send(self, sends: Sequence[Send]) -> list[Callable[[], bool]]:
        """What goes to one server goes as one parcel. Returns what says when the tensors have been read."""
        readers = []
        for number, group in groupby(sorted(sends, key=self._link), key=self._link):
            for parcel in parcels(send.message for send in group):
                reader = self._links[number].send(parcel)
                if reader is not None:
                    readers.append(reader)
        return readers

    def wait(self) -> None:
        """Until something comes, or a tick has passed. Raises Unreachable where a server is gone for too long."""
        self._ready = dict(self._poller.poll(round(1000 * _TICK_SECONDS)))
        for link in self._links:
            link.watch(self._ready)
        down = max(self._links, key=lambda link: link.seconds_down)
        seconds = down.seconds_down
        if seconds > self._timeout:
            raise down.absence(self._timeout)
        if seconds > _MENTION_SECONDS and not self._waiting:
            self._waiting = True
            text = "waiting for a server at {address} (for {timeout:g} s at most)"
            self._say(Line("waiting-for-server", text, level=WARNING, address=down.address, timeout=self._timeout))
        if down.refusal not in ("", self._refusal):
            self._refusal = down.refusal
            self._say(f"{self._refusal} (trying again for {self._timeout:g} s at most)")
        elif seconds == 0.0:
            self._waiting, self._refusal = False, ""
        if self._insists and any(link.shares is False for link in self._links):
            text = "the servers share no memory with this process: they are on another host, or were told not to"
            raise RefusedError("not-shared", f"{text}; use --transport auto")

    def messages(self) -> list[tuple[int | None, Any]]:
        """What `wait` has found, with the number of the shard that it is from; None: from the coordinator."""
        found: list[tuple[int | None, Any]] = []
        for shard, link in zip(self._shard_of, self._links, strict=True):
            for message in link.messages(self._ready):
                is_weights = isinstance(message, Weights)
                found.append((self._shard_here if shard is None and is_weights else shard, message))
        return found

    @property
    def _shard_here(self) -> int | None:
        """The shard that the coordinator's server has."""
        return self._link_of.index(0) if 0 in self._link_of else None

    def _arrange(self, addresses: Sequence[str], known: Mapping[str, Connection]) -> None:
        """A link for each shard, a known one where there is one to its address."""
        self._links, self._link_of, self._shard_of = self._links[:1], [], [None]
        for number, address in enumerate(addresses):
            if not address:
                self._link_of.append(0)
                continue
            link = known.get(on_host(address, self._links[0].address))
            self._link_of.append(len(self._links))
            self._links.append(link or self._connect(address))
            self._shard_of.append(number)
        self._listen()

    def _connect(self, address: str) -> Connection:
        """As with the first one: where it wants keys so do they, and where it wants none they have none."""
        first = self._links[0]
        return Connection(on_host(address, first.address), self._context, keys=first.keys)

    def _listen(self) -> None:
        self._poller = zmq.Poller()
        for link in self._links:
            link.register(self._poller)

    def close(self) -> None:
        for link in self._links:
            link.close(_LAST_WORDS_SECONDS)
        self._context.term()

    def _link(self, send: Send) -> int:
        return self._link_of[send.to.shard] if isinstance(send.to, ShardAddress) else 0
