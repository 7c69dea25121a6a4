"""A server process: sockets around a shard and, in the first server, the coordinator.

client  <- ROUTER ->  first server   coordinator and shard 0
client  <- ROUTER ->  other servers  one shard each
other server <- DEALER -> ROUTER of the first: join, applied, snapshot; admit, take-snapshot, stop
"""

import errno
import os
import time
from collections.abc import Callable
from typing import Any

import zmq

from ps_vae.errors import PeerError, RefusedError, Unreachable
from ps_vae.ps import sockets
from ps_vae.ps.addresses import plain
from ps_vae.ps.connection import Connection
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.frames import decode, encode
from ps_vae.ps.messages import PROTOCOL, TO_SERVER, Admit, Applied, Error, Join, Pull, Push, Stop, TakeSnapshot, Weights
from ps_vae.ps.outbox import COORDINATOR, Event, Output, Refused, RunEnded, Send, Sender, ShardAddress
from ps_vae.ps.shard import Shard

__all__ = ["Endpoint", "Server", "join"]

_TICK_SECONDS = 0.05
_JOIN_RETRY_SECONDS = 1.0
_LAST_WORDS_SECONDS = 2.0
# Messages taken between two ticks.
_BURST = 256

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
    link.send(ask)
    while not should_stop():
        for message in link.messages(_TICK_SECONDS):
            if isinstance(message, Admit):
                return message
            if isinstance(message, Error):
                raise RefusedError(message.code, f"{link.address} refused this server: {message.text}")
            if isinstance(message, Stop):
                raise RefusedError("ended", f"the run at {link.address} has ended: {message.reason}")
        now = time.monotonic()
        if now - started > timeout:
            raise Unreachable(f"no server answered at {link.address} within {timeout:g} s")
        if now - asked > _JOIN_RETRY_SECONDS:
            asked = now
            link.send(ask)
    raise Unreachable("stopped before a run was joined")


class Server:
    """Delivers messages between sockets and the state machines of this process.

    coordinator  in the first server; the others give `link`, their connection to it
    notify       called with every event, on the thread of `run`
    """

    def __init__(
        self,
        endpoint: Endpoint,
        shard: Shard,
        *,
        coordinator: Coordinator | None = None,
        link: Connection | None = None,
        notify: Notify,
        patience: float = 60.0,
    ) -> None:
        self._endpoint = endpoint
        self._shard = shard
        self._coordinator = coordinator
        self._link = link
        self._notify = notify
        self._patience = patience
        self._shards: dict[int, Sender] = {}
        self._poller = zmq.Poller()
        self._poller.register(endpoint.socket, zmq.POLLIN)
        if link is not None:
            link.register(self._poller)
        self.ended: RunEnded | None = None

    def run(self, on_tick: Callable[[], None] = lambda: None) -> RunEnded:
        """Serve until the run has ended. `on_tick` is called about twenty times a second."""
        # The shard says that it is up before anybody is answered.
        ticked = time.monotonic()
        self._tick(ticked)
        while self.ended is None:
            self._poller.poll(round(1000 * _TICK_SECONDS))
            self._take_messages()
            if time.monotonic() - ticked >= _TICK_SECONDS:
                ticked = time.monotonic()
                on_tick()
                self._tick(ticked)
        return self.ended

    def close(self) -> None:
        """Let the last messages leave, then close."""
        if self._link is not None:
            self._link.close(_LAST_WORDS_SECONDS)
        self._endpoint.close(_LAST_WORDS_SECONDS)

    def dispatch(self, outputs: list[Output]) -> None:
        """Deliver what a state machine returned."""
        queue = list(outputs)
        while queue:
            output = queue.pop(0)
            if not isinstance(output, Send):
                self._observe(output)
            elif output.to == COORDINATOR and self._coordinator is not None:
                queue += self._handle_here(self._coordinator, output.message)
            elif output.to == COORDINATOR and self._link is not None:
                self._link.send(output.message)
            elif output.to == ShardAddress(self._shard.number):
                queue += self._handle_here(self._shard, output.message)
            elif isinstance(output.to, ShardAddress):
                if (sender := self._shards.get(output.to.shard)) is not None:
                    queue += self._send(sender, output.message)
            else:
                queue += self._send(output.to, output.message)

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

    def _take_messages(self) -> None:
        for _ in range(_BURST):
            try:
                sender, *frames = sockets.receive(self._endpoint.socket)
            except zmq.Again:
                break
            self._take(sender.bytes, frames)
        try:
            for message in self._link.messages(0.0) if self._link is not None else ():
                self._take_order(message)
        except PeerError as error:
            self._notify(Refused("the coordinator", error.code, str(error)))

    def _take(self, sender: bytes, frames: list[zmq.Frame]) -> None:
        now = time.monotonic()
        try:
            message = decode([frame.buffer for frame in frames], TO_SERVER)
            if isinstance(message, Push | Pull):
                self._shard.traffic.pushed += sum(len(frame) for frame in frames)
                outputs = self._shard.handle(sender, message, now)
            elif isinstance(message, Error):
                outputs = [Refused("a shard", message.code, message.text)]
            elif self._coordinator is None:
                raise PeerError("not-coordinator", "this server is a shard; the coordinator is the first server")
            else:
                outputs = self._coordinator.handle(sender, message, now)
                if isinstance(message, Applied):
                    self._shards[message.shard] = sender
        except PeerError as error:
            refusal = Error(error.code, str(error)[:2048])
            outputs = [Refused(sender.hex(), error.code, str(error)), Send(sender, refusal)]
        self.dispatch(outputs)

    def _take_order(self, message: Any) -> None:
        """A message from the coordinator to this shard."""
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

    def _send(self, sender: Sender, message: Any) -> list[Output]:
        """Send to a client; one that is gone is forgotten, one that does not read misses the message and asks again."""
        frames = encode(message)
        try:
            tracker = sockets.send(self._endpoint.socket, [sender, *frames])
        except zmq.Again:
            return []
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self._shard.forget(sender)
            return self._coordinator.forget(sender, time.monotonic()) if self._coordinator is not None else []
        if isinstance(message, Weights):
            self._shard.traffic.pulled += sum(len(frame) for frame in frames)
            if tracker is not None and not tracker.done:
                self._shard.buffers.hold(message.payload[0], lambda: bool(tracker.done))
        return []

    def _tick(self, now: float) -> None:
        outputs = self._shard.tick(now)
        if self._coordinator is not None:
            outputs = outputs + self._coordinator.tick(now)
        elif self._link is not None and (down := self._link.seconds_down()) > self._patience:
            reason = f"the coordinator at {self._link.address} is gone for {down:.0f} s"
            outputs = [*outputs, RunEnded(True, reason)]
        self.dispatch(outputs)
