"""A server process: sockets around a shard and, in the first server, the coordinator.

client  <- ROUTER ->  first server   coordinator and shard 0
client  <- ROUTER ->  other servers  one shard each
client  <- memory ->  any server on the same host: the tensors of push and weights
other server <- DEALER -> ROUTER of the first: join, applied, snapshot; admit, take-snapshot, stop
"""

import errno
import os
import time
from collections.abc import Callable, Collection
from typing import Any

import zmq

from ps_vae.errors import PeerError, RefusedError, Unreachable
from ps_vae.ps import sockets
from ps_vae.ps.addresses import plain
from ps_vae.ps.clients import Clients
from ps_vae.ps.connection import Connection
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.messages import PROTOCOL, Admit, Applied, Error, Join, Pull, Push, Share, Stop, TakeSnapshot, Weights
from ps_vae.ps.outbox import COORDINATOR, Event, Output, Refused, RunEnded, Send, Sender, ShardAddress
from ps_vae.ps.shard import Shard
from ps_vae.ps.sharing.segment import Segment

__all__ = ["Endpoint", "Server", "join"]

_TICK_SECONDS = 0.05
_JOIN_RETRY_SECONDS = 1.0
# What is still queued for a slow link, weights perhaps, goes out before the word that the run is over.
_LAST_WORDS_SECONDS = 10.0

_TO_SHARD = (Push, Pull)

Notify = Callable[[Event], None]


class Endpoint:
    """A bound ROUTER socket.

    Raises Unreachable where the address cannot be bound.
    """

    def __init__(self, listen: str, frame_limit: int) -> None:
        sockets.check_address(listen, is_bound=True)
        if sockets.is_served(listen):
            raise Unreachable(f"cannot listen on {listen}: another server does; give another address to --listen")
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        sockets.configure(self.socket, frame_limit)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self.socket.bind(listen)
        except zmq.ZMQError as error:
            self.close()
            why = "the port is in use" if error.errno == errno.EADDRINUSE else str(error)
            raise Unreachable(f"cannot listen on {listen}: {why}; give another address to --listen") from None
        self.address = plain(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def close(self, linger_seconds: float = 0.0) -> None:
        sockets.close(self.socket, linger_seconds=linger_seconds)
        self.context.term()


def join(
    coordinator: str, address: str, *, timeout: float, should_stop: Callable[[], bool]
) -> tuple[Connection, Admit]:
    """Offer this server, reached at `address`, to the run of `coordinator`; returns the connection to it when admitted.

    Raises Unreachable after `timeout` seconds without an answer, RefusedError where the run does not want it.
    """
    link = Connection(coordinator)
    try:
        return link, _ask_to_join(link, Join(PROTOCOL, os.urandom(16), address), timeout, should_stop)
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
            raise Unreachable(f"no server answered at {link.address} within {timeout:g} s")
        if now - asked > _JOIN_RETRY_SECONDS:
            asked = now
            link.send([ask])
    raise Unreachable("stopped before a run was joined")


class Server:
    """Delivers messages between sockets and the state machines of this process.

    coordinator  in the first server; the others give `link`, their connection to it
    segment      the memory that the shard's published weights lie in, shared with the clients on this host
    notify       called with every event, on the thread of `run`, after what was to be sent is sent
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
        self._clients = Clients(endpoint.socket, segment, shard.buffers, shard.traffic)
        self._shards: dict[int, Sender] = {}
        self._here = (COORDINATOR, ShardAddress(shard.number))
        self._poller = zmq.Poller()
        self._clients.register(self._poller)
        if link is not None:
            link.register(self._poller)
        self.ended: RunEnded | None = None

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
            self._shard.refusals.count(messages.code)
            return _refusal(sender, messages)
        now = time.monotonic()
        return [output for message in messages for output in self._handle(sender, message, now)]

    def _handle(self, sender: Sender, message: Any, now: float) -> list[Output]:
        try:
            if isinstance(message, _TO_SHARD):
                return self._shard.handle(sender, message, now)
            if isinstance(message, Share):
                return [Send(sender, self._clients.invite(sender))]
            if isinstance(message, Error):
                return [Refused("a shard", message.code, message.text)]
            if self._coordinator is None:
                raise PeerError("not-coordinator", "this server is a shard; the coordinator is the first server")
            outputs = self._coordinator.handle(sender, message, now)
            if isinstance(message, Applied):
                self._shards[message.shard] = sender
        except PeerError as error:
            if not isinstance(message, _TO_SHARD):
                self._shard.refusals.count(error.code)
            return _refusal(sender, error)
        return outputs

    def _forget(self, sender: Sender) -> list[Output]:
        self._shard.forget(sender)
        self._clients.forget(sender)
        return self._coordinator.forget(sender, time.monotonic()) if self._coordinator is not None else []

    def _take_orders(self, link: Connection, ready: Collection[Any]) -> None:
        """Messages from the coordinator to this shard."""
        link.watch(ready)
        try:
            for message in link.messages(ready):
                self._take_order(message)
        except PeerError as error:
            self._notify(Refused("the coordinator", error.code, str(error)))

    def _take_order(self, message: Any) -> None:
        if isinstance(message, TakeSnapshot):
            try:
                self.dispatch(self._shard.handle(COORDINATOR, message, time.monotonic()))
            except PeerError as error:
                self.dispatch([Send(COORDINATOR, Error(error.code, str(error)[:2048]))])
        elif isinstance(message, Stop):
            self.dispatch([RunEnded(message.failed, message.reason)])
        elif isinstance(message, Error) and message.code in ("wrong-run", "bad-shard"):
            self.dispatch([RunEnded(True, f"the coordinator was started again, without this shard: {message.text}")])
        elif isinstance(message, Error):
            self._notify(Refused("this shard", message.code, message.text))

    def _tick(self, now: float) -> None:
        outputs = self._shard.tick(now)
        if self._coordinator is not None:
            outputs = outputs + self._coordinator.tick(now)
        elif self._link is not None and (down := self._link.seconds_down) > self._patience:
            reason = f"the coordinator at {self._link.address} is gone for {down:.0f} s"
            outputs = [*outputs, RunEnded(True, reason)]
        self.dispatch(outputs)


def _refusal(sender: Sender, error: PeerError) -> list[Output]:
    who = sender.hex() if isinstance(sender, bytes) else str(sender)
    return [Refused(who, error.code, str(error)), Send(sender, Error(error.code, str(error)[:2048]))]
