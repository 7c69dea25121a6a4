"""A server process: sockets around a shard and, in the first server, the coordinator.

client  <- ROUTER ->  first server   coordinator and shard 0; the coordinator alone where that was started again
client  <- ROUTER ->  other servers  one shard each
client  <- memory ->  any server on the same host: the tensors of push and weights
other server <- DEALER -> ROUTER of the first: join, applied, snapshot; admit, take-snapshot, stop
"""

import time
from collections.abc import Callable, Collection
from typing import Any

import zmq

from ps_vae.errors import PeerError
from ps_vae.ps.addresses import is_advertised
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.clients import Clients
from ps_vae.ps.connection import Connection
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.frames import HEADER_LIMIT
from ps_vae.ps.gathering import Gathering
from ps_vae.ps.messages import (
    Applied,
    Error,
    Follow,
    Join,
    Lead,
    Present,
    Pull,
    Push,
    Replicated,
    Share,
    Stop,
    TakeSnapshot,
    Weights,
    Who,
)
from ps_vae.ps.outbox import COORDINATOR, Event, Output, Refused, RunEnded, Send, Sender, ShardAddress
from ps_vae.ps.refusals import Refusals
from ps_vae.ps.security.visitors import Visitors
from ps_vae.ps.shard import Shard
from ps_vae.ps.sharing.segment import Segment
from ps_vae.ps.traffic import Traffic
from ps_vae.ps.watching import Watching

__all__ = ["Server"]

_TICK_SECONDS = 0.05
_DOOR_SECONDS = 5.0
# A look at one connection takes a twentieth of that.
_MEASURE_SECONDS = 1e-4
# What is still queued for a slow link, weights perhaps, goes out before the word that the run is over.
_LAST_WORDS_SECONDS = 10.0

_TO_SHARD = (Push, Pull, Follow, Replicated)

Notify = Callable[[Event], None]


class Server:
    """Delivers messages between sockets and the state machines of this process.

    shard        that is here, if one is
    coordinator  in the first server; the others give `link`, their connection to it
    segment      the memory that the shard's published weights lie in, shared with the clients on this host
    notify       called with every event, on the thread of `run`, after what was to be sent is sent
    """

    def __init__(
        self,
        endpoint: Endpoint,
        shard: Shard | None,
        *,
        coordinator: Coordinator | Gathering | None = None,
        link: Connection | None = None,
        segment: Segment | None = None,
        notify: Notify,
        patience: float = 60.0,
    ) -> None:
        self._endpoint = endpoint
        self._shard = shard
        self._coordinator = coordinator
        self._link = link
        self._notify = notify
        self._patience = patience
        self._visitors = Visitors(endpoint.keys)
        self._refusals = _account(shard, coordinator)
        buffers, traffic = (Buffers(0), Traffic()) if shard is None else (shard.buffers, shard.traffic)
        self._clients = Clients(endpoint.socket, segment, buffers, traffic, self._visitors)
        self._looked_at = self._measured_at = time.monotonic()
        if coordinator is None:
            # Nobody sends it more than a gradient; the endpoint was made before the slice was known.
            endpoint.intake.limit = min(endpoint.intake.limit, 2 * max(4 * buffers.size, HEADER_LIMIT))
        self._shards: dict[int, Sender] = {}
        self._watching = Watching(endpoint.address, endpoint.shown)
        self._here: tuple[Sender, ...] = (COORDINATOR,)
        if shard is not None:
            self._here = (COORDINATOR, ShardAddress(shard.number))
        self._poller = zmq.Poller()
        self._clients.register(self._poller)
        if link is not None:
            link.register(self._poller)
        self.ended: RunEnded | None = None
        self.is_deposed = False

    def run(self, on_tick: Callable[[], None] = lambda: None) -> RunEnded:
        """Serve until the run has ended. `on_tick` is called about twenty times a second."""
        # The shard says that it is up before anybody is answered.
        ticked = time.monotonic()
        self._tick(ticked)
        while self.ended is None:
            ready = dict(self._poller.poll(round(1000 * _TICK_SECONDS)))
            for sender in self._clients.watch(ready):
                self.dispatch(self._forget(sender))
            self._take_parcels(ready)
            if self._link is not None:
                self._take_orders(self._link, ready)
            if time.monotonic() - ticked >= _TICK_SECONDS:
                ticked = time.monotonic()
                on_tick()
                self._tick(ticked)
        return self.ended

    def leave(self) -> None:
        """Let go of the clients and keep the address, for another server to go on at it."""
        self._clients.close()
        self._watching.close()

    def close(self) -> None:
        """Let the last messages leave, then close."""
        if self._link is not None:
            self._link.close(_LAST_WORDS_SECONDS)
        self._watching.close()
        self._clients.close()
        self._endpoint.close(_LAST_WORDS_SECONDS)

    def dispatch(self, outputs: list[Output]) -> None:
        """Deliver what a state machine returned: first to others, then to the machines here, then to the watcher."""
        events: list[Event] = []
        while outputs:
            inner: list[Send] = []
            outgoing: dict[Sender, list[Any]] = {}
            for output in outputs:
                if not isinstance(output, Send):
                    events.append(output)
                elif output.to in self._here:
                    inner.append(output)
                elif not isinstance(output.to, ShardAddress):
                    outgoing.setdefault(output.to, []).append(output.message)
                elif (sender := self._shards.get(output.to.shard)) is not None:
                    outgoing.setdefault(sender, []).append(output.message)
            outputs = []
            for sender, messages in outgoing.items():
                if not self._clients.send(sender, messages):
                    outputs += self._forget(sender)
            for output in inner:
                outputs += self._deliver_here(output)
        for event in events:
            self._observe(event)

    def _deliver_here(self, send: Send) -> list[Output]:
        if send.to != COORDINATOR and self._shard is not None:
            return self._handle_here(self._shard, send.message)
        if self._coordinator is not None:
            return self._handle_here(self._coordinator, send.message)
        if self._link is not None:
            self._link.send([send.message])
        return []

    def _handle_here(self, machine: Coordinator | Gathering | Shard, message: Any) -> list[Output]:
        """From one machine of this process to another."""
        try:
            return machine.handle(COORDINATOR, message, time.monotonic())
        except PeerError as error:
            if machine is not self._shard:
                self._refusals.count(error.code)
            return [Refused("this server", error.code, str(error))]

    def _observe(self, event: Event) -> None:
        if isinstance(event, RunEnded):
            self.ended = event
        self._notify(event)

    def _take_parcels(self, ready: Collection[Any]) -> None:
        """What has come, and what it leads to: at once where weights are waited for, otherwise after all of it, so that
        a client gets in one parcel what goes to it."""
        outputs: list[Output] = []
        for sender, messages in self._clients.received(ready):
            outputs += self._handle_all(sender, messages)
            # Before a worker is answered its gradient is let go of: it can write the next one to the same place.
            del messages
            if any(isinstance(output, Send) and isinstance(output.message, Weights) for output in outputs):
                self.dispatch(outputs)
                outputs = []
        self.dispatch(outputs)

    def _handle_all(self, sender: Sender, messages: list[Any] | PeerError) -> list[Output]:
        if isinstance(messages, PeerError):
            self._refusals.count(messages.code)
            return _refusal(sender, messages)
        now = time.monotonic()
        return [output for message in messages for output in self._handle(sender, message, now)]

    def _handle(self, sender: Sender, message: Any, now: float) -> list[Output]:
        try:
            self._visitors.check(sender, message)
            if isinstance(message, _TO_SHARD):
                return self._of_the_shard().handle(sender, message, now)
            if isinstance(message, Share):
                return [Send(sender, self._clients.invite(sender))]
            if isinstance(message, Error):
                return [Refused("a shard", message.code, message.text)]
            if self._coordinator is None:
                raise PeerError("not-coordinator", "this server is a shard; the coordinator is the first server")
            if isinstance(message, Join | Present) and not is_advertised(message.address):
                # We are going to connect to it, and so are all clients.
                raise PeerError("malformed", f"{message.KIND}: {message.address!r} is no address to connect to")
            outputs = self._coordinator.handle(sender, message, now)
            if isinstance(message, Applied):
                self._shards[message.shard] = sender
        except PeerError as error:
            if self._shard is None or not isinstance(message, _TO_SHARD):
                self._refusals.count(error.code)
            return _refusal(sender, error)
        return outputs

    def _forget(self, sender: Sender) -> list[Output]:
        now = time.monotonic()
        outputs = [] if self._shard is None else self._shard.forget(sender, now)
        self._clients.forget(sender)
        return outputs + (self._coordinator.forget(sender, now) if self._coordinator is not None else [])

    def _take_orders(self, link: Connection, ready: Collection[Any]) -> None:
        """Messages from the coordinator to this shard."""
        link.watch(ready)
        try:
            for message in link.messages(ready):
                self._take_order(message)
        except PeerError as error:
            self._refusals.count(error.code)
            self._observe(Refused("the coordinator", error.code, str(error)))

    def _take_order(self, message: Any) -> None:
        if isinstance(message, TakeSnapshot | Lead | Who):
            try:
                self.dispatch(self._of_the_shard().handle(COORDINATOR, message, time.monotonic()))
            except PeerError as error:
                self.dispatch([Send(COORDINATOR, Error(error.code, str(error)[:2048]))])
        elif isinstance(message, Stop):
            self.dispatch([RunEnded(message.failed, message.reason)])
        elif isinstance(message, Error) and message.code == "deposed":
            self.is_deposed = True
            self.dispatch([RunEnded(False, message.text)])
        elif isinstance(message, Error) and message.code in ("wrong-run", "bad-shard"):
            self.dispatch([RunEnded(True, f"the coordinator was started again, without this shard: {message.text}")])
        elif isinstance(message, Error):
            self._observe(Refused("this shard", message.code, message.text))

    def _tick(self, now: float) -> None:
        self._watch_the_door(now)
        self._watch_the_intake(now)
        outputs = [] if self._shard is None else self._shard.tick(now)
        if self._coordinator is not None:
            outputs = outputs + self._coordinator.tick(now)
            for session in self._watching.gone(self._coordinator.servers):
                outputs += self._coordinator.lost_server(session, now)
        elif self._link is not None and (down := self._link.seconds_down) > self._patience:
            reason = f"the coordinator at {self._link.address} is gone for {down:.0f} s"
            outputs = [*outputs, RunEnded(True, reason)]
        self.dispatch(outputs)

    def _of_the_shard(self) -> Shard:
        if self._shard is None:
            raise PeerError("not-here", "this server has no shard (any more); the coordinator knows who has")
        return self._shard

    def _watch_the_door(self, now: float) -> None:
        """Cut off whose key is not allowed any more; tell of those who were not let in, not of each."""
        for sender in self._visitors.revoked():
            why = PeerError("revoked", "your key is not allowed here any more; ask who runs the server")
            self._refusals.count(why.code)
            self.dispatch(_refusal(sender, why))
            self.dispatch(self._forget(sender))
        if self._endpoint.door is None or now - self._looked_at < _DOOR_SECONDS:
            return
        self._looked_at = now
        if (turned_away := self._endpoint.door.turned_away()) is not None:
            newest = turned_away.newest
            text = f"{newest.text} ({turned_away.count} connections in {_DOOR_SECONDS:g} s)"
            self._refusals.count(newest.code)
            self._notify(Refused(f"a stranger at {newest.address}", newest.code, text))

    def _watch_the_intake(self, now: float) -> None:
        """Cut off whose message has no end."""
        endpoint = self._endpoint
        if endpoint.door is None:
            endpoint.census.note_all()
        opened = set(endpoint.census.open)
        if now - self._measured_at < _MEASURE_SECONDS * len(opened):
            return
        self._measured_at = now
        for cut in endpoint.intake.watch(opened, self._clients.spoken()):
            text = f"{cut.received:,} bytes and no end of a message; its connection is cut"
            self._refusals.count("malformed")
            self._notify(Refused(f"a peer at {cut.peer}", "malformed", text))


def _account(shard: Shard | None, coordinator: Coordinator | Gathering | None) -> Refusals:
    if shard is not None:
        return shard.refusals
    return Refusals() if coordinator is None else coordinator.refusals


def _refusal(sender: Sender, error: PeerError) -> list[Output]:
    who = sender.hex() if isinstance(sender, bytes) else str(sender)
    return [Refused(who, error.code, str(error)), Send(sender, Error(error.code, str(error)[:2048]))]
