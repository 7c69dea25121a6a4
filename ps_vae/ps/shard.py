"""A shard: one slice of the parameter vector, and the steps that are being collected for it. No sockets, no clock.

message         when                                         effect
push            none of it has been counted, or bsp          bsp: counted, in its place in the step's tree, and applied
                and not all of it                            when the step is whole; ssp and asp: applied
                it has                                       dropped: a resent or re-issued push is a no-op
                run, step, block, version, size, encoding    refused (PeerError): nothing changes
                or a number in it is wrong                   and counted; whose gradient cannot be used is told on
pull, push.then a published version is wanted                answered
                a later one                                  answered when it is published
                only versions that are gone                  a pull is refused: `gone`; push.then is forgotten
take-snapshot   at that version, or before it                sent now, or when it is reached
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.aggregation.separate import SeparateStep
from ps_vae.ps.arrivals import Arrivals
from ps_vae.ps.blocks import Block, is_block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import BlockCodec
from ps_vae.ps.codecs.pull import PullCodec
from ps_vae.ps.consistency import Versions
from ps_vae.ps.decoder import Decoder
from ps_vae.ps.lag import Lag
from ps_vae.ps.messages import Applied, Pull, Push, Snapshot, TakeSnapshot
from ps_vae.ps.outbox import COORDINATOR, Output, Send, Sender, StepApplied
from ps_vae.ps.publication import Publication, Want
from ps_vae.ps.reduction import Metrics, StepSum
from ps_vae.ps.refusals import UNUSABLE, Refusals
from ps_vae.ps.rules import ASYNCHRONOUS_WINDOW, RunRules
from ps_vae.ps.state import ShardState
from ps_vae.ps.traffic import Traffic
from ps_vae.ps.update import LookAhead, Moment, Update
from ps_vae.ps.waiting import Waiting

__all__ = ["Shard"]

Array = npt.NDArray[np.float32]

# A shard tells the coordinator where it is at least this often, so that a lost message costs no more.
_REPEAT_SECONDS = 1.0

# The farthest, in updates, that weights are published ahead.
_FARTHEST = 8.0


class Shard:
    """One slice of the parameter vector.

    Invariants: the weights hold exactly the steps below `before`, those in `beyond`, and the blocks in `_arrivals`,
                each once;
                version = before, and it never decreases;
                a published array is never written to again while it is published or being read.

    update      the optimizer's step
    buffers     the pool for the weights that are published, of this slice's size
    is_finite   whether an array has neither NaN nor infinity in it
    look_ahead  what workers compute on instead of the weights, if anything, where their gradients come late
    codec       how the gradients of pushes are written; None: as they are
    pull        how weights are written for workers; None: as they are
    name_of     what an element of the slice is called, for people
    """

    def __init__(
        self,
        number: int,
        rules: RunRules,
        state: ShardState,
        update: Update,
        buffers: Buffers,
        is_finite: Callable[[Array], bool] = lambda array: bool(np.isfinite(array).all()),
        look_ahead: LookAhead | None = None,
        codec: BlockCodec | None = None,
        pull: PullCodec | None = None,
        name_of: Callable[[int], str] = "element {}".format,
    ) -> None:
        self.number = number
        self.rules = rules
        self.before = state.version
        self.beyond: set[int] = set()
        self.duplicates = 0
        self.traffic = Traffic()
        self.refusals = Refusals()
        self.buffers = buffers
        self._update = update
        self._partial_sums = Buffers(buffers.size)
        self._decoder = Decoder(codec, self._partial_sums, is_finite, name_of, shard=number)
        is_prompt = rules.consistency.is_synchronous and rules.consistency.delay == 0
        self._look_ahead = None if is_prompt else look_ahead
        self._updates = state.version
        self._lag = Lag()
        self._arrivals: dict[int, Arrivals] = {}
        self._optimizer = state.optimizer
        self._metrics: Metrics = ()
        self._sums: dict[int, StepSum | SeparateStep] = {}
        self._tables = Buffers(rules.microbatches * buffers.size)
        first = buffers.take()
        first[:] = state.weights
        self._published = Publication(
            state.version,
            first,
            buffers,
            consistency=rules.consistency,
            pull=pull,
            is_ahead=self._look_ahead is not None and rules.consistency.is_synchronous,
            number=number,
            is_finite=is_finite,
        )
        self._waiting = Waiting(rules.consistency.delay)
        self._snapshots: set[int] = set()
        self._told_at = float("-inf")

    @property
    def version(self) -> int:
        """How many steps, from the first, are in the weights."""
        return self.before

    @property
    def weights(self) -> Array:
        """The newest published slice; not to be written to."""
        return self._published.weights

    def handle(self, sender: Sender, message: Push | Pull | TakeSnapshot, now: float) -> list[Output]:
        """Take one message. PeerError where it is refused; nothing has changed then but the account of refusals."""
        try:
            match message:
                case Push():
                    return self._push(sender, message, now)
                case Pull():
                    return self._pull(sender, message)
                case TakeSnapshot():
                    return self._take_snapshot(message.version)
        except PeerError as error:
            self._account(message, error)
            raise

    def tick(self, now: float) -> list[Output]:
        """Call at least every tenth of a second."""
        if now - self._told_at < _REPEAT_SECONDS:
            return []
        return [self._tell(now)]

    def forget(self, sender: Sender) -> None:
        """The sender is gone: do not answer it any more."""
        self._waiting.forget(sender)
        self._lag.forget(sender)

    def _push(self, sender: Sender, push: Push, now: float) -> list[Output]:
        block = self._check(push)
        outputs: list[Output] = []
        if push.step < self.before or push.step in self.beyond:
            self.duplicates += 1
        else:
            gradient = self._gradient(push)
            self.traffic.dense += 4 * self.buffers.size
            outputs = self._count(sender, push, block, gradient, now)
        if push.then is not None:
            outputs += self._answer(sender, Want(Versions(*push.then), held=push.version)) or []
        return outputs

    def _account(self, message: Push | Pull | TakeSnapshot, error: PeerError) -> None:
        self.refusals.count(error.code)
        if not isinstance(message, Push) or error.code not in UNUSABLE:
            return
        if self.refusals.blame(message.session, message.ticket, error.code):
            # With the next tick, however many come: the coordinator does not take the worker's word for it.
            self._told_at = float("-inf")

    def _same_run(self, run: bytes) -> None:
        if run != self.rules.run:
            raise PeerError("wrong-run", f"this server works on run {self.rules.run.hex()}, not {run.hex()}")

    def _check(self, push: Push) -> Block:
        self._same_run(push.run)
        block = Block(push.start, push.stop)
        if not is_block(block, self.rules.microbatches):
            text = f"[{push.start}, {push.stop}) is no block of {self.rules.microbatches} microbatches"
            raise PeerError("bad-block", text)
        if self.rules.aggregation is not None and len(block) > 1:
            text = f"[{push.start}, {push.stop}) is a sum; this run takes each microbatch by itself"
            raise PeerError("bad-block", text)
        bound = self.rules.consistency.bound
        delay = self.rules.consistency.delay
        last = min(self.rules.steps, self.before + (ASYNCHRONOUS_WINDOW if bound is None else 1 + bound + delay))
        if push.step >= last:
            raise PeerError("bad-step", f"step {push.step} is not open; steps below {last} are")
        usable = self.rules.consistency.usable(push.step)
        if push.version not in usable or push.version > self.version:
            raise PeerError("stale", f"step {push.step} was computed on version {push.version}, allowed are {usable}")
        self._decoder.check_size(push)
        return block

    def _gradient(self, push: Push) -> Array:
        if len(push.metrics) != self.rules.metrics:
            raise PeerError("bad-size", f"a push with {len(push.metrics)} metrics, this run has {self.rules.metrics}")
        if not all(map(math.isfinite, push.metrics)):
            raise PeerError("not-finite", f"step {push.step}: the metrics of a push are {push.metrics}")
        return self._decoder.gradient(push)

    def _count(self, sender: Sender, push: Push, block: Block, gradient: Array, now: float) -> list[Output]:
        if self.rules.consistency.is_synchronous:
            if push.step not in self._sums:
                self._sums[push.step] = self._new_sum()
            total = self._sums[push.step]
            if not total.add(block, gradient, push.metrics, pooled=self._decoder.is_pooled):
                self.duplicates += 1
            return self._apply_sums(now)
        step = self._arrivals.setdefault(push.step, Arrivals(self.rules.microbatches))
        if not step.accepts(block):
            self.duplicates += 1
            self._decoder.done_with(gradient)
            return []
        step.add(block, push.metrics, max(0, self.version - push.version))
        outputs = self._apply_block(sender, push, block, gradient, step, now)
        self._decoder.done_with(gradient)
        return outputs

    def _new_sum(self) -> StepSum | SeparateStep:
        microbatches, aggregation = self.rules.microbatches, self.rules.aggregation
        if aggregation is None:
            return StepSum(microbatches, self._partial_sums)
        return SeparateStep(aggregation, microbatches, self._partial_sums, self._tables)

    def _apply_sums(self, now: float) -> list[Output]:
        """The steps that are whole, in order."""
        outputs: list[Output] = []
        while (total := self._sums.get(self.before)) is not None and total.is_complete:
            outputs += self._apply_sum(self.before, total, now)
        return outputs

    def _apply_sum(self, step: int, total: StepSum | SeparateStep, now: float) -> list[Output]:
        parts, self._metrics = total.parts()
        before = self.weights
        out = self._updated(parts, Moment(self.version, self._updates))
        ahead = self._expected(before, out, self.rules.consistency.delay)
        del self._sums[step]
        total.close()
        self._mark(step)
        self._published.add(self.version, out, is_pinned=self.rules.is_milestone(self.version), ahead=ahead)
        return [StepApplied(step, self.version, 0, self._metrics), *self._news(now)]

    def _apply_block(
        self, sender: Sender, push: Push, block: Block, gradient: Array, step: Arrivals, now: float
    ) -> list[Output]:
        before, version = self.weights, self.version
        share = len(block) / self.rules.microbatches
        trust = self._lag.trust_in_push(sender, self._updates)
        out = self._updated((gradient,), Moment(version, self._updates, share, trust))
        ahead = self._expected(before, out, self._lag.mean)
        if not step.is_complete:
            self._published.add(version, out, is_pinned=False, ahead=ahead)
            return self._answers()
        self._metrics = step.metrics
        del self._arrivals[push.step]
        self._mark(push.step)
        is_milestone = self.version > version and self.rules.is_milestone(self.version)
        self._published.add(self.version, out, is_pinned=is_milestone, ahead=ahead)
        count = self.before + len(self.beyond)
        return [StepApplied(push.step, count, step.staleness, self._metrics), *self._news(now)]

    def _updated(self, parts: tuple[Array, ...], moment: Moment) -> Array:
        out = self.buffers.take()
        self._update(self.weights, parts, self._optimizer, moment, out)
        self._updates += 1
        return out

    def _expected(self, before: Array, weights: Array, updates: float) -> Array | None:
        """Where the weights will be when a gradient that is begun now arrives, so many updates later: straight on."""
        if self._look_ahead is None:
            return None
        ahead = self.buffers.take()
        self._look_ahead(before, weights, min(updates, _FARTHEST), ahead)
        return ahead

    def _news(self, now: float) -> list[Output]:
        return [self._tell(now), *self._due_snapshots(), *self._answers()]

    def _mark(self, step: int) -> None:
        self.beyond.add(step)
        while self.before in self.beyond:
            self.beyond.remove(self.before)
            self.before += 1

    def _tell(self, now: float) -> Send:
        self._told_at = now
        beyond = tuple(sorted(self.beyond))
        traffic = self.traffic
        counted = (traffic.pushed, traffic.pulled, traffic.shared, traffic.dense)
        told = (self.refusals.counts, self.refusals.blamed)
        return Send(COORDINATOR, Applied(self.rules.run, self.number, self.before, beyond, *counted, *told))

    def _pull(self, sender: Sender, pull: Pull) -> list[Output]:
        self._same_run(pull.run)
        want = Want(Versions(*pull.want), exact=pull.exact)
        if (answer := self._answer(sender, want)) is None:
            raise PeerError("gone", f"version {want.versions.high} is gone; the newest is {self.version}")
        return answer

    def _answer(self, sender: Sender, want: Want) -> list[Output] | None:
        """The newest published version wanted; nothing yet where it is to come; None where it is gone."""
        if (found := self._published.find(want)) is not None:
            self._waiting.remove(sender, want)
            if want.held is not None:
                # The first weights of a worker, and evaluators', are sent as they are in any case.
                self.traffic.dense += 4 * self.buffers.size
            self._lag.weights_sent(sender, self._updates)
            return [Send(sender, found)]
        if want.versions.high is not None and want.versions.high <= self.version:
            return None
        self._waiting.add(sender, want)
        return []

    def _answers(self) -> list[Output]:
        return [output for sender, want in self._waiting for output in self._answer(sender, want) or []]

    def _take_snapshot(self, version: int) -> list[Output]:
        if version < self.version:
            raise PeerError("gone", f"a snapshot of version {version} was asked for, the shard is at {self.version}")
        self._snapshots.add(version)
        return self._due_snapshots()

    def _due_snapshots(self) -> list[Output]:
        is_wanted = self.version in self._snapshots or self.rules.is_milestone(self.version)
        if self.beyond or self._arrivals or not is_wanted:
            return []
        self._snapshots.discard(self.version)
        # Copies: the arrays go on being used while the snapshot travels and is written.
        payload = tuple(array.copy() for array in (self.weights, *self._optimizer.values()))
        names = tuple(self._optimizer)
        return [Send(COORDINATOR, Snapshot(self.rules.run, self.number, self.version, self._metrics, names, payload))]
