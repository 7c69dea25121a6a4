"""The loops of clients, a worker's and an evaluator's: state machines between sockets and arrays."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ps_vae.errors import DataError, PeerError, RefusedError
from ps_vae.lines import WARNING, Line
from ps_vae.ps.actions import Action, Compute, Joined, Measure, Result, ShardsMoved, Spent, Stopped, Store, StoreWords
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import BlockCodec, Codec
from ps_vae.ps.encoder import Encoder, room_for
from ps_vae.ps.evaluator import Evaluator
from ps_vae.ps.in_process import InProcess
from ps_vae.ps.links import Links
from ps_vae.ps.messages import Welcome
from ps_vae.ps.outbox import Send
from ps_vae.ps.partition import Slice
from ps_vae.ps.record import record
from ps_vae.ps.replica import ReplicaReader
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.ps.transport import open_segment
from ps_vae.ps.worker import Worker

__all__ = ["EvaluatorProgram", "Outcome", "WorkerProgram", "evaluate", "work", "work_over"]

Vector = npt.NDArray[np.float32]

# Gradients of a worker that may be on their way at once; more are sent through the socket.
_GRADIENTS = 8


class WorkerProgram(Protocol):
    """What a worker does between the messages."""

    def codecs(self, welcome: Welcome) -> tuple[list[BlockCodec], int]:
        """How gradients are pushed to each shard, and the run's seed; no codecs: as they are."""

    def pull_codecs(self, welcome: Welcome) -> list[Codec]:
        """How weights come from each shard where they come encoded; none: as they are."""

    def join(self, welcome: Welcome, gradients: Buffers) -> None:
        """Prepare model and data. Gradients are to be written into arrays taken from `gradients`."""

    def compute(self, weights: Vector, step: int, blocks: Sequence[Block]) -> list[Result]:
        """The blocks' gradients at these weights, which are only read. May raise NumericalError or DataError."""

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


@record
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
    transport: str = "auto",
    keys: ClientKeys | None = None,
) -> Outcome:
    """Work for the run at `address` until it ends or `should_stop`.

    transport  how tensors travel: one of TRANSPORTS
    keys       what is shown to the servers, if anything

    Raises Unreachable after `connect_timeout` seconds without a server, RefusedError where it does not want us.
    """
    links = Links(address, program.say, connect_timeout, keys)
    return work_over(links, program, name=name, fingerprint=fingerprint, should_stop=should_stop, transport=transport)


def work_over(
    links: Links | InProcess,
    program: WorkerProgram,
    *,
    name: str,
    fingerprint: str,
    should_stop: Callable[[], bool],
    transport: str = "tcp",
) -> Outcome:
    """The same, over links to the servers, or to those in this process; they are closed at the end."""
    session = Worker(os.urandom(16), name, fingerprint)
    state = _Work(session, program, links, transport)
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

    def __init__(self, session: Worker, program: WorkerProgram, links: Links | InProcess, transport: str) -> None:
        self.outcome: Outcome | None = None
        self._session = session
        self._program = program
        self._links = links
        self._transport = transport
        self._weights: Vector = np.zeros(0, np.float32)
        self._own_weights = self._weights
        self._size = 0
        self._encoder: Encoder | None = None
        self._reader: ReplicaReader | None = None
        self._gradients = self._travelling = Buffers(0)
        self._said = ""
        self._ended = 0

    def take_messages(self) -> None:
        messages = self._links.messages()
        if not messages:
            # So also where shared memory has just ended, which must not last for as long as an array is not used again.
            self._travelling.let_go()
        if not messages and self._session.state == "idle":
            self._keep_a_copy()
        for shard, message in messages:
            self.perform(self._session.handle(shard, message, time.monotonic()))
        self.perform(self._session.tick(time.monotonic()))
        if self._session.waits_because != self._said:
            self._said = self._session.waits_because
            self._program.say(Line("waiting", "{why}", why=self._said))

    def perform(self, actions: list[Action]) -> None:
        _send(self._links, actions)
        for action in actions:
            match action:
                case Store():
                    self._store(action)
                case StoreWords():
                    self._store_words(action)
                case Compute():
                    self._compute(action)
                case Joined():
                    self._join(action.welcome)
                    self.perform(self._session.prepared(time.monotonic()))
                case Stopped():
                    self.outcome = Outcome(action.failed, action.reason)

    def _join(self, welcome: Welcome) -> None:
        self._size, self._ended = welcome.shards[-1][2], 0
        codecs, seed = self._program.codecs(welcome)
        size = room_for(codecs, welcome.microbatches) if codecs else self._size
        segment = open_segment(_GRADIENTS, size, self._transport)
        self._travelling = Buffers(size, segment.arrays() if segment is not None else ())
        slices = [Slice(start, stop) for _, start, stop in welcome.shards]
        pulls = self._program.pull_codecs(welcome)
        self._reader = ReplicaReader(pulls, slices) if pulls else None
        repeats = welcome.bound == 0
        self._encoder = Encoder(codecs, slices, seed, self._travelling, repeats=repeats) if codecs else None
        self._weights = self._own_weights = np.zeros(0, np.float32)
        self._links.open_shards([address for address, _, _ in welcome.shards])
        if self._transport != "tcp":
            self._links.share(segment, insists=self._transport == "shm")
        self._gradients = Buffers(self._size) if codecs else self._travelling
        self._program.join(welcome, self._gradients)

    def _store(self, store: Store) -> None:
        """Weights are computed on where they lie, in shared memory or in what came, if they are all of them."""
        if store.weights.size == self._size and store.weights.flags.behaved:
            self._weights = store.weights
            return
        self._weights = self._own()
        self._weights[store.start : store.start + store.weights.size] = store.weights

    def _store_words(self, store: StoreWords) -> None:
        if self._reader is None:
            raise RefusedError(
                "bad-payload", f"shard {store.shard + 1} sent encoded weights, the run has no codec for them"
            )
        self._keep_a_copy()
        self._weights = self._own()
        try:
            self._reader.take(store.shard, store.words, self._weights, is_change=store.is_change)
        except PeerError as error:
            raise RefusedError(error.code, f"shard {store.shard + 1} sent weights that are none: {error}") from None

    def _keep_a_copy(self) -> None:
        """Give back weights that lie in the server's memory, as long as there is no work.

        Where there are more workers than pieces of work, each would keep another version from being written over.
        """
        if self._weights.size and self._weights is not self._own_weights:
            own = self._own()
            np.copyto(own, self._weights)
            self._weights = own

    def _own(self) -> Vector:
        if self._own_weights.size == 0:
            self._own_weights = np.zeros(self._size, np.float32)
        return self._own_weights

    def _compute(self, work: Compute) -> None:
        started = time.perf_counter_ns()
        waiting = started - self._ended if self._ended else 0
        try:
            results = self._program.compute(self._weights, work.step, work.blocks)
        except (ArithmeticError, DataError) as error:
            self._program.say(Line("work-failed", "{why}", level=WARNING, step=work.step, why=str(error)))
            self.perform(self._session.failed(str(error), time.monotonic()))
            return
        computed = time.perf_counter_ns()
        arrays = [self._encoded(work.step, result) for result in results]
        parts = None
        if self._encoder is not None:
            sent = zip(arrays, results, strict=True)
            parts = [self._encoder.parts(array, len(result.block)) for array, result in sent]
        self._ended = time.perf_counter_ns()
        spent = Spent(self._ended - started, self._ended - computed, waiting)
        actions = self._session.computed(results, spent, time.monotonic(), parts)
        readers = self._links.send([action for action in actions if isinstance(action, Send)])
        for array in arrays:
            if readers:
                self._travelling.hold(array, lambda: all(is_done() for is_done in readers))
            self._travelling.give(array)

    def _encoded(self, step: int, result: Result) -> Vector:
        """The array that travels: the gradient, or its words, and then the gradient is done with."""
        if self._encoder is None:
            return result.gradient
        words = self._encoder.encode(step, result)
        self._gradients.give(result.gradient)
        return words


def evaluate(
    address: str,
    program: EvaluatorProgram,
    *,
    name: str,
    connect_timeout: float,
    should_stop: Callable[[], bool],
    transport: str = "auto",
    keys: ClientKeys | None = None,
) -> Outcome:
    """Follow the run at `address` until it ends or `should_stop`: measure the weights of each milestone.

    Raises Unreachable and RefusedError as `work` does.
    """
    session = Evaluator(os.urandom(16), name)
    links = Links(address, program.say, connect_timeout, keys)
    state = _Evaluation(session, program, links, transport)
    try:
        state.perform(session.start(time.monotonic()))
        while state.outcome is None:
            links.wait()
            if should_stop():
                state.perform(session.leave())
                return Outcome(False, "told to stop")
            for shard, message in links.messages():
                state.perform(session.handle(shard, message, time.monotonic()))
            state.perform(session.tick(time.monotonic()))
        return state.outcome
    finally:
        links.close()


class _Evaluation:
    """Performs what an evaluator's state machine asks for."""

    def __init__(self, session: Evaluator, program: EvaluatorProgram, links: Links, transport: str) -> None:
        self.outcome: Outcome | None = None
        self._session = session
        self._program = program
        self._links = links
        self._transport = transport
        self._weights: Vector = np.zeros(0, np.float32)

    def perform(self, actions: list[Action]) -> None:
        _send(self._links, actions)
        for action in actions:
            match action:
                case Store():
                    self._weights[action.start : action.start + action.weights.size] = action.weights
                case Measure():
                    values = tuple(self._program.measure(action.version).items())
                    self.perform(self._session.measured(values, time.monotonic()))
                case Joined():
                    self._links.open_shards([address for address, _, _ in action.welcome.shards])
                    if self._transport != "tcp":
                        self._links.share(None, insists=self._transport == "shm")
                    self._weights = self._program.join(action.welcome)
                case Stopped():
                    self.outcome = Outcome(action.failed, action.reason)


def _send(links: Links | InProcess, actions: list[Action]) -> None:
    """To where the shards are now."""
    for action in actions:
        if isinstance(action, ShardsMoved):
            links.move_shards(action.addresses)
    sends = [action for action in actions if isinstance(action, Send)]
    if sends:
        links.send(sends)
