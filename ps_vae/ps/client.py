"""The clients' sockets: a worker's, an evaluator's, and a question asked once."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import zmq

from ps_vae.errors import RefusedError, Unreachable
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.connection import Connection
from ps_vae.ps.evaluator import Evaluator, Measure
from ps_vae.ps.messages import State, Status, Welcome
from ps_vae.ps.outbox import Send, ShardAddress
from ps_vae.ps.worker import Action, Compute, Joined, Result, Stopped, Store, Worker

__all__ = ["Outcome", "WorkerProgram", "evaluate", "status", "work"]

_TICK_SECONDS = 0.05
_LAST_WORDS_SECONDS = 1.0
_FRAME_LIMIT = 1 << 33

Vector = npt.NDArray[np.float32]
Session = Worker | Evaluator


class WorkerProgram(Protocol):
    """What a worker does between the messages."""

    def join(self, welcome: Welcome) -> tuple[Vector, Buffers]:
        """Prepare model and data. Returns the weight vector that weights are copied into, and the pool of gradients."""

    def compute(self, step: int, blocks: Sequence[Block]) -> list[Result]:
        """The blocks' gradients, in arrays taken from the pool. May raise NumericalError or DataError."""

    def say(self, text: str) -> None:
        """Something that the operator wants to know."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run ended, as far as this client knows."""

    failed: bool
    reason: str


class _Links:
    """Connections to the coordinator and, once they are known, the other shards."""

    def __init__(self, address: str, say: Callable[[str], None], timeout: float) -> None:
        self._context = zmq.Context()
        self._say = say
        self._timeout = timeout
        self._waiting = False
        self._poller = zmq.Poller()
        self._links = [Connection(self._context, address, _FRAME_LIMIT)]
        self._links[0].register(self._poller)

    def open_shards(self, addresses: Sequence[str]) -> None:
        """Connect to the shards; the first one is the coordinator's server, which is connected."""
        for link in self._links[1:]:
            link.close(0.0)
        self._links[1:] = [Connection(self._context, _on_host(a, self._links[0].address), _FRAME_LIMIT) for a in addresses[1:]]
        self._poller = zmq.Poller()
        for link in self._links:
            link.register(self._poller)

    def send(self, send: Send) -> zmq.MessageTracker | None:
        shard = send.to.shard if isinstance(send.to, ShardAddress) else 0
        return self._links[shard].send(send.message)

    def wait(self) -> None:
        """Until something comes, or a tick has passed. Raises Unreachable where a server is gone for too long."""
        self._poller.poll(round(1000 * _TICK_SECONDS))
        down = max(self._links, key=lambda link: link.seconds_down())
        seconds = down.seconds_down()
        if seconds > self._timeout:
            raise Unreachable(f"no server answered at {down.address} within {self._timeout:g} s")
        if seconds > 1.0 and not self._waiting:
            self._waiting = True
            self._say(f"waiting for a server at {down.address} (for {self._timeout:g} s at most)")
        elif seconds == 0.0:
            self._waiting = False

    def messages(self) -> list[tuple[int, Any]]:
        return [(number, message) for number, link in enumerate(self._links) for message in link.messages(0.0)]

    def close(self) -> None:
        for link in self._links:
            link.close(_LAST_WORDS_SECONDS)
        self._context.term()


def work(
    address: str,
    program: WorkerProgram,
    *,
    name: str,
    fingerprint: str,
    connect_timeout: float,
    should_stop: Callable[[], bool],
) -> Outcome:
    """Work for the run at `address` until it ends or `should_stop`.

    Raises Unreachable after `connect_timeout` seconds without a server, RefusedError where it does not want this worker.
    """
    session = Worker(os.urandom(16), name, fingerprint)
    links = _Links(address, program.say, connect_timeout)
    state = _Work(session, program, links)
    try:
        state.perform(session.start(time.monotonic()))
        while state.outcome is None:
            links.wait()
            if should_stop():
                state.perform(session.leave())
                return Outcome(False, "told to stop")
            state.take_messages()
        return state.outcome
    finally:
        links.close()


class _Work:
    """Performs what a worker's state machine asks for."""

    def __init__(self, session: Worker, program: WorkerProgram, links: _Links) -> None:
        self.outcome: Outcome | None = None
        self._session = session
        self._program = program
        self._links = links
        self._weights: Vector = np.zeros(0, np.float32)
        self._buffers = Buffers(0)
        self._said = ""

    def take_messages(self) -> None:
        for link, message in self._links.messages():
            is_shards = message.KIND == "weights" or (message.KIND == "error" and link > 0)
            self.perform(self._session.handle(link if is_shards else None, message, time.monotonic()))
        self.perform(self._session.tick(time.monotonic()))
        if self._session.waits_because != self._said:
            self._said = self._session.waits_because
            self._program.say(self._said)

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    self._links.send(action)
                case Store():
                    self._weights[action.start : action.start + action.weights.size] = action.weights
                case Compute():
                    self._compute(action)
                case Joined():
                    self._links.open_shards([address for address, _, _ in action.welcome.shards])
                    self._weights, self._buffers = self._program.join(action.welcome)
                    self.perform(self._session.prepared(time.monotonic()))
                case Stopped():
                    self.outcome = Outcome(action.failed, action.reason)

    def _compute(self, work: Compute) -> None:
        started = time.perf_counter_ns()
        try:
            results = self._program.compute(work.step, work.blocks)
        except ArithmeticError as error:
            self._program.say(str(error))
            self.perform(self._session.failed(str(error), time.monotonic()))
            return
        nanoseconds = time.perf_counter_ns() - started
        actions = self._session.computed(results, nanoseconds, time.monotonic())
        trackers = [self._links.send(action) for action in actions if isinstance(action, Send)]
        busy = [tracker for tracker in trackers if tracker is not None and not tracker.done]
        for result in results:
            self._buffers.hold(result.gradient, lambda: all(tracker.done for tracker in busy))
            self._buffers.give(result.gradient)


def evaluate(
    address: str,
    join: Callable[[Welcome], Vector],
    measure: Callable[[int], dict[str, float]],
    *,
    name: str,
    say: Callable[[str], None],
    connect_timeout: float,
    should_stop: Callable[[], bool],
) -> Outcome:
    """Follow the run at `address`: at each milestone pull its weights into `join`'s vector and report what `measure` says."""
    session = Evaluator(os.urandom(16), name)
    links = _Links(address, say, connect_timeout)
    weights: Vector = np.zeros(0, np.float32)
    try:
        actions = session.start(time.monotonic())
        while True:
            for action in actions:
                match action:
                    case Send():
                        links.send(action)
                    case Joined():
                        links.open_shards([shard for shard, _, _ in action.welcome.shards])
                        weights = join(action.welcome)
                    case Store():
                        weights[action.start : action.start + action.weights.size] = action.weights
                    case Measure():
                        values = tuple(measure(action.version).items())
                        links.send(session.measured(values, time.monotonic()))
                    case Stopped():
                        return Outcome(action.failed, action.reason)
            links.wait()
            if should_stop():
                return Outcome(False, "told to stop")
            actions = [a for link, message in links.messages() for a in session.handle(link, message, time.monotonic())]
            actions += session.tick(time.monotonic())
    finally:
        links.close()


def status(address: str, timeout: float) -> dict[str, Any]:
    """Ask the coordinator at `address` how it is going.

    Raises Unreachable without an answer within `timeout` seconds, RefusedError where the server is none to ask.
    """
    context = zmq.Context()
    connection = Connection(context, address, 1 << 20)
    try:
        started = asked = time.monotonic()
        connection.send(Status())
        while time.monotonic() - started < timeout:
            for message in connection.messages(_TICK_SECONDS):
                if isinstance(message, State):
                    answer: dict[str, Any] = json.loads(message.json)
                    return answer
                raise RefusedError("not-coordinator", f"{address} is not the first server of a run: {message}")
            if time.monotonic() - asked > 0.2:
                asked = time.monotonic()
                connection.send(Status())
        raise Unreachable(f"no server answered at {address} within {timeout:g} s")
    finally:
        connection.close(0.0)
        context.term()


def _on_host(address: str, coordinator: str) -> str:
    """An address `tcp://*:PORT` is on the coordinator's host."""
    if not address.startswith("tcp://*:"):
        return address
    host = urlsplit(coordinator).hostname or "127.0.0.1"
    return f"tcp://{f'[{host}]' if ':' in host else host}:{address.rsplit(':', 1)[1]}"
