"""A server process: sockets around a shard and, in the first server, the coordinator.

client  <- ROUTER ->  first server   coordinator and shard 0
client  <- ROUTER ->  other servers  one shard each
client  <- memory ->  any server on the same host: the tensors of push and weights
other server <- DEALER -> ROUTER of the first: join, applied, snapshot; admit, take-snapshot, stop
"""

import errno
import time
from collections.abc import Callable, Collection
from typing import Any

import zmq

from ps_vae.errors import PeerError, RefusedError, Unreachable
from ps_vae.ps import sockets
from ps_vae.ps.addresses import connectable, is_advertised, on_host, plain
from ps_vae.ps.clients import Clients
from ps_vae.ps.complaints import Complaints
from ps_vae.ps.connection import Connection
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.messages import (
    Admit,
    Applied,
    Error,
    Follow,
    Join,
    Lead,
    Pull,
    Push,
    Replicated,
    Share,
    Stop,
    TakeSnapshot,
    Weights,
)
from ps_vae.ps.outbox import COORDINATOR, Event, Output, Refused, RunEnded, Send, Sender, ShardAddress
from ps_vae.ps.security.door import OVERHEAD, Door
from ps_vae.ps.security.keys import ClientKeys, ServerKeys
from ps_vae.ps.security.rehearsal import rehearse
from ps_vae.ps.security.visitors import Visitors
from ps_vae.ps.shard import Shard
from ps_vae.ps.sharing.segment import Segment

__all__ = ["Endpoint", "Server", "join"]

_TICK_SECONDS = 0.05
_JOIN_RETRY_SECONDS = 1.0
_DOOR_SECONDS = 5.0
# What is still queued for a slow link, weights perhaps, goes out before the word that the run is over.
_LAST_WORDS_SECONDS = 10.0

# A server whose connection is down for longer is gone: a process that ends closes it, and one that is there takes the
# next at once. One that has not been reached yet has longer.
_GONE_SECONDS = 0.5
_UNREACHED_SECONDS = 5.0

_TO_SHARD = (Push, Pull, Follow, Replicated)

Notify = Callable[[Event], None]


class Endpoint:
    """A bound ROUTER socket.

    keys  who is let in; without them everybody is, and nothing is encrypted

    Raises Unreachable where the address cannot be bound, SecurityError where a stranger is let in who should not be.
    """

    def __init__(self, listen: str, frame_limit: int, keys: ServerKeys | None = None) -> None:
        sockets.check_address(listen, is_bound=True)
        if sockets.is_served(listen):
            raise Unreachable(f"cannot listen on {listen}: another server does; give another address to --listen")
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.keys = keys
        sockets.configure_router(self.socket, frame_limit + (OVERHEAD if keys is not None else 0))
        self.door = Door(self.context, self.socket, keys) if keys is not None else None
        self._file: tuple[int, int] | None = None
        try:
            self.socket.bind(listen)
        except zmq.ZMQError as error:
            self.close()
            why = "the port is in use" if error.errno == errno.EADDRINUSE else str(error)
            raise Unreachable(f"cannot listen on {listen}: {why}; give another address to --listen") from None
        self.address = plain(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))
        self._file = sockets.socket_file(self.address)
        if keys is not None:
            try:
                rehearse(connectable(self.address), keys.own)
            except BaseException:
                self.close()
                raise

    @property
    def shown(self) -> ClientKeys | None:
        """What this server shows to others of its run."""
        return None if self.keys is None else self.keys.shown

    def close(self, linger_seconds: float = 0.0) -> None:
        sockets.close(self.socket, linger_seconds=linger_seconds)
        if self.door is not None:
            self.door.close()
        self.context.term()
        if self._file is not None:
            sockets.remove_socket_file(self.address, self._file)


def join(
    coordinator: str,
    ask: Join,
    *,
    timeout: float,
    should_stop: Callable[[], bool],
    keys: ClientKeys | None = None,
) -> tuple[Connection, Admit]:
    """Offer this server to the run of `coordinator`; returns the connection to it when admitted.

    Raises Unreachable after `timeout` seconds without an answer, RefusedError where the run does not want it, or where
    the keys do not fit.
    """
    link = Connection(coordinator, keys=keys)
    try:
        return link, _ask_to_join(link, ask, timeout, should_stop)
    except BaseException:
        link.close(0.0)
        raise


def _ask_to_join(link: Connection, ask: Join, timeout: float, should_stop: Callable[[], bool]) -> Admit:
    started = asked = time.monotonic()
    link.send([ask])
    while not should_stop():
        link.wait(_TICK_SECONDS)
        for message in link.messages():
            if isinstance(message, Admit):
                return message
            if isinstance(message, Error) and message.code == "starting":
                # Somebody is there, who will want us.
                started = time.monotonic()
            elif isinstance(message, Error):
                raise RefusedError(message.code, f"{link.address} refused this server: {message.text}")
            if isinstance(message, Stop):
                raise RefusedError("ended", f"the run at {link.address} has ended: {message.reason}")
        now = time.monotonic()
        if now - started > timeout:
            raise link.absence(timeout)
        if now - asked > _JOIN_RETRY_SECONDS:
            asked = now
            link.send([ask])
    raise Unreachable("stopped before a run was joined")


class Server:
    """Delivers messages between sockets and the state machines of this process.

    coordinator  in the first server; the others give `link`, their connection to it
    segment      the memory that the shard's published weights lie in, shared with the clients on this host
    notify       called with every event, on the thread of `run`, after what was to be sent is sent; of refusals with
                 some, and with how many more there were
    """

    def __init__(
        self,
        endpoint: Endpoint,
        shard: Shard,
        *,
        coordinator: Coordinator | None = None,
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
        self._complaints = Complaints()
        self._clients = Clients(endpoint.socket, segment, shard.buffers, shard.traffic, self._visitors)
        self._looked_at = time.monotonic()
        self._shards: dict[int, Sender] = {}
        self._watched: dict[bytes, _Watched] = {}
        # Not the clients': all sockets of a context stand still while the name of a host is looked up.
        self._watching: zmq.Context[Any] = zmq.Context()
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

    def close(self) -> None:
        """Let the last messages leave, then close."""
        if self._link is not None:
            self._link.close(_LAST_WORDS_SECONDS)
        for watched in self._watched.values():
            watched.connection.close(0.0)
        self._watching.term()
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
        if send.to != COORDINATOR:
            return self._handle_here(self._shard, send.message)
        if self._coordinator is not None:
            return self._handle_here(self._coordinator, send.message)
        if self._link is not None:
            self._link.send([send.message])
        return []

    def _handle_here(self, machine: Coordinator | Shard, message: Any) -> list[Output]:
        """From one machine of this process to another."""
        try:
            return machine.handle(COORDINATOR, message, time.monotonic())
        except PeerError as error:
            if machine is not self._shard:
                self._shard.refusals.count(error.code)
            return [Refused("this server", error.code, str(error))]

    def _observe(self, event: Event) -> None:
        if isinstance(event, RunEnded):
            self.ended = event
        if not isinstance(event, Refused) or self._complaints.is_told(event):
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
            self._shard.refusals.count(messages.code)
            return _refusal(sender, messages)
        now = time.monotonic()
        return [output for message in messages for output in self._handle(sender, message, now)]

    def _handle(self, sender: Sender, message: Any, now: float) -> list[Output]:
        try:
            self._visitors.check(sender, message)
            if isinstance(message, _TO_SHARD):
                return self._shard.handle(sender, message, now)
            if isinstance(message, Share):
                return [Send(sender, self._clients.invite(sender))]
            if isinstance(message, Error):
                return [Refused("a shard", message.code, message.text)]
            if self._coordinator is None:
                raise PeerError("not-coordinator", "this server is a shard; the coordinator is the first server")
            if isinstance(message, Join) and not is_advertised(message.address):
                # We are going to connect to it, and so are all clients.
                raise PeerError("malformed", f"join: {message.address!r} is no address to connect to")
            outputs = self._coordinator.handle(sender, message, now)
            if isinstance(message, Applied):
                self._shards[message.shard] = sender
        except PeerError as error:
            if not isinstance(message, _TO_SHARD):
                self._shard.refusals.count(error.code)
            return _refusal(sender, error)
        return outputs

    def _forget(self, sender: Sender) -> list[Output]:
        now = time.monotonic()
        outputs = self._shard.forget(sender, now)
        self._clients.forget(sender)
        return outputs + (self._coordinator.forget(sender, now) if self._coordinator is not None else [])

    def _take_orders(self, link: Connection, ready: Collection[Any]) -> None:
        """Messages from the coordinator to this shard."""
        link.watch(ready)
        try:
            for message in link.messages(ready):
                self._take_order(message)
        except PeerError as error:
            self._shard.refusals.count(error.code)
            self._observe(Refused("the coordinator", error.code, str(error)))

    def _take_order(self, message: Any) -> None:
        if isinstance(message, TakeSnapshot | Lead):
            try:
                self.dispatch(self._shard.handle(COORDINATOR, message, time.monotonic()))
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
        for event in self._complaints.due(now):
            self._notify(event)
        outputs = self._shard.tick(now)
        if self._coordinator is not None:
            outputs = outputs + self._coordinator.tick(now) + self._lost_servers(self._coordinator, now)
        elif self._link is not None and (down := self._link.seconds_down) > self._patience:
            reason = f"the coordinator at {self._link.address} is gone for {down:.0f} s"
            outputs = [*outputs, RunEnded(True, reason)]
        self.dispatch(outputs)

    def _lost_servers(self, coordinator: Coordinator, now: float) -> list[Output]:
        """What follows from servers of this run whose processes have ended, or cannot be reached."""
        servers = coordinator.servers
        for session in self._watched.keys() - servers.keys():
            self._watched.pop(session).connection.close(0.0)
        outputs: list[Output] = []
        for session, address in servers.items():
            if session not in self._watched:
                there = connectable(on_host(address, self._endpoint.address))
                connection = Connection(there, self._watching, keys=self._endpoint.shown)
                self._watched[session] = _Watched(connection)
            if self._watched[session].is_gone():
                outputs += coordinator.lost_server(session, now)
        return outputs

    def _watch_the_door(self, now: float) -> None:
        """Cut off whose key is not allowed any more; tell of those who were not let in, not of each."""
        for sender in self._visitors.revoked():
            why = PeerError("revoked", "your key is not allowed here any more; ask who runs the server")
            self._shard.refusals.count(why.code)
            self.dispatch(_refusal(sender, why))
            self.dispatch(self._forget(sender))
        if self._endpoint.door is None or now - self._looked_at < _DOOR_SECONDS:
            return
        self._looked_at = now
        if (turned_away := self._endpoint.door.turned_away()) is not None:
            newest = turned_away.newest
            text = f"{newest.text} ({turned_away.count} connections in {_DOOR_SECONDS:g} s)"
            self._shard.refusals.count(newest.code)
            self._notify(Refused(f"a stranger at {newest.address}", newest.code, text))


class _Watched:
    """Another server, watched through a connection that nothing is sent on."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._was_there = False

    def is_gone(self) -> bool:
        self.connection.watch()
        down = self.connection.seconds_down
        self._was_there = self._was_there or down == 0.0
        return down > (_GONE_SECONDS if self._was_there else _UNREACHED_SECONDS)


def _refusal(sender: Sender, error: PeerError) -> list[Output]:
    who = sender.hex() if isinstance(sender, bytes) else str(sender)
    return [Refused(who, error.code, str(error)), Send(sender, Error(error.code, str(error)[:2048]))]
