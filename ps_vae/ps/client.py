"""The loops of clients, a worker's and an evaluator's: state machines between sockets and arrays."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ps_vae.errors import DataError
from ps_vae.ps.actions import Action, Compute, Joined, Measure, Result, Stopped, Store
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.evaluator import Evaluator
from ps_vae.ps.links import Links
from ps_vae.ps.messages import Welcome
from ps_vae.ps.outbox import Send
from ps_vae.ps.worker import Worker

__all__ = ["EvaluatorProgram", "Outcome", "WorkerProgram", "evaluate", "work"]

Vector = npt.NDArray[np.float32]


class WorkerProgram(Protocol):
    """What a worker does between the messages."""

    def join(self, welcome: Welcome) -> tuple[Vector, Buffers]:
        """Prepare model and data. Returns the weight vector that weights are copied into, and the pool of gradients."""

    def compute(self, step: int, blocks: Sequence[Block]) -> list[Result]:
        """The blocks' gradients, in arrays taken from the pool. May raise NumericalError or DataError."""

    def say(self, text: str) -> None:
        """Something that the operator wants to know."""


class EvaluatorProgram(Protocol):
    """What an evaluator does between the messages."""

    def join(self, welcome: Welcome) -> Vector:
        """Prepare model and data. Returns the vector that weights are copied into."""

    def measure(self, version: int) -> dict[str, float]:
        """Figures of the weights in the vector; none where there is nothing to measure on."""

    def say(self, text: str) -> None:
        """Something that the operator wants to know."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run ended, as far as this client knows."""

    failed: bool
    reason: str


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

    Raises Unreachable after `connect_timeout` seconds without a server, RefusedError where it does not want us.
    """
    session = Worker(os.urandom(16), name, fingerprint)
    links = Links(address, program.say, connect_timeout)
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

    def __init__(self, session: Worker, program: WorkerProgram, links: Links) -> None:
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
        except (ArithmeticError, DataError) as error:
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
    program: EvaluatorProgram,
    *,
    name: str,
    connect_timeout: float,
    should_stop: Callable[[], bool],
) -> Outcome:
    """Follow the run at `address` until it ends or `should_stop`: measure the weights of each milestone.

    Raises Unreachable and RefusedError as `work` does.
    """
    session = Evaluator(os.urandom(16), name)
    links = Links(address, program.say, connect_timeout)
    state = _Evaluation(session, program, links)
    try:
        state.perform(session.start(time.monotonic()))
        while state.outcome is None:
            links.wait()
            if should_stop():
                state.perform(session.leave())
                return Outcome(False, "told to stop")
            for link, message in links.messages():
                state.perform(session.handle(link, message, time.monotonic()))
            state.perform(session.tick(time.monotonic()))
        return state.outcome
    finally:
        links.close()


class _Evaluation:
    """Performs what an evaluator's state machine asks for."""

    def __init__(self, session: Evaluator, program: EvaluatorProgram, links: Links) -> None:
        self.outcome: Outcome | None = None
        self._session = session
        self._program = program
        self._links = links
        self._weights: Vector = np.zeros(0, np.float32)

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send():
                    self._links.send(action)
                case Store():
                    self._weights[action.start : action.start + action.weights.size] = action.weights
                case Measure():
                    values = tuple(self._program.measure(action.version).items())
                    self.perform(self._session.measured(values, time.monotonic()))
                case Joined():
                    self._links.open_shards([address for address, _, _ in action.welcome.shards])
                    self._weights = self._program.join(action.welcome)
                case Stopped():
                    self.outcome = Outcome(action.failed, action.reason)
