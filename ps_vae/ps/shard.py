"""A shard: one slice of the parameter vector, and the steps that are being collected for it. No sockets, no clock.

message         when                                         effect
push            none of it has been counted, or bsp          bsp: counted, in its place in the step's tree, and applied
                and not all of it                            when the step is whole; ssp and asp: applied
                it has                                       dropped: a resent or re-issued push is a no-op
                run, step, block, version, size, encoding    refused (PeerError): nothing changes
                or a number in it is wrong
pull, push.then a published version is wanted                answered
                a later one                                  answered when it is published
                only versions that are gone                  a pull is refused: `gone`; push.then is forgotten
take-snapshot   at that version, or before it                sent now, or when it is reached
follow          nobody else is waited for                    a copy of the state, then every step (see `replication`)
replicated      of the follower that is waited for           the step that it has is published
lead            -                                            the follower that it names is not waited for any more
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.arrivals import Arrivals
from ps_vae.ps.blocks import Block, is_block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import BlockCodec
from ps_vae.ps.codecs.pull import PullCodec
from ps_vae.ps.consistency import Versions
from ps_vae.ps.decoder import Decoder
from ps_vae.ps.lag import Lag
from ps_vae.ps.messages import Applied, Copy, Follow, Lead, Pull, Push, Replicate, Replicated, Snapshot, TakeSnapshot
from ps_vae.ps.outbox import COORDINATOR, Output, Send, Sender, StepApplied
from ps_vae.ps.publication import Publication, Want
from ps_vae.ps.record import record
from ps_vae.ps.reduction import Metrics, StepSum
from ps_vae.ps.replication import Replication
from ps_vae.ps.rules import ASYNCHRONOUS_WINDOW, RunRules
from ps_vae.ps.state import ShardState
from ps_vae.ps.traffic import Traffic
from ps_vae.ps.update import LookAhead, Moment, Update
from ps_vae.ps.waiting import Waiting

__all__ = ["FromOutside", "Shard", "state_of"]

Array = npt.NDArray[np.float32]

# A shard tells the coordinator where it is at least this often, so that a lost message costs no more.
_REPEAT_SECONDS = 1.0

# The farthest, in updates, that weights are published ahead.
_FARTHEST = 8.0

# How arrays of a copy are named.
_OPTIMIZER, _PUBLISHED = "optimizer/", "published/"

FromOutside = Push | Pull | TakeSnapshot | Follow | Replicated | Lead


def state_of(copy: Copy, size: int) -> ShardState:
    """What a leader's copy holds, in arrays of our own. PeerError where it is no shard's of so many numbers."""
    arrays = dict(zip(copy.names, (array.copy() for array in copy.payload), strict=False))
    weights = arrays.pop("weights", None)
    optimizer = {name[len(_OPTIMIZER) :]: arrays.pop(name) for name in copy.names if name.startswith(_OPTIMIZER)}
    published = {name[len(_PUBLISHED) :]: arrays.pop(name) for name in copy.names if name.startswith(_PUBLISHED)}
    fits = weights is not None and all(array.size == size for array in (weights, *optimizer.values()))
    if weights is None or not fits or arrays or len(copy.names) != len(copy.payload):
        sizes = [array.size for array in copy.payload]
        raise PeerError("bad-size", f"a copy of {sizes} numbers, {copy.names}, of a slice of {size}")
    return ShardState(copy.version, weights, optimizer, copy.updates, copy.metrics, published)


@record
class _Updated:
    """A step that is summed and applied, and not published yet.

    gradient  what the follower gets, if there is one: an array of our buffers
    """

    step: int
    weights: Array
    ahead: Array | None
    metrics: Metrics
    gradient: Array | None


class Shard:
    """One slice of the parameter vector.

    Invariants: the weights hold exactly the steps below `before`, those in `beyond`, and the blocks in `_arrivals`,
                each once;
                version = before, and it never decreases;
                a published array is never written to again while it is published or being read;
                what is published is what the follower has too, where one is waited for.

    update      the optimizer's step
    buffers     the pool for the weights that are published, of this slice's size
    is_finite   whether an array has neither NaN nor infinity in it
    look_ahead  what workers compute on instead of the weights, if anything, where their gradients come late
    codec       how the gradients of pushes are written; None: as they are
    pull        how weights are written for workers; None: as they are
    incarnation grows each time that another server leads this shard
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
    ) -> None:
        self.number = number
        self.rules = rules
        self.before = state.version
        self.beyond: set[int] = set()
        self.duplicates = 0
        self.traffic = Traffic()
        self.incarnation = 0
        self.buffers = buffers
        self._update = update
        self._partial_sums = Buffers(buffers.size)
        self._decoder = Decoder(codec, self._partial_sums, is_finite, shard=number)
        is_prompt = rules.consistency.is_synchronous and rules.consistency.delay == 0
        self._look_ahead = None if is_prompt else look_ahead
        self._updates = state.version if state.updates is None else state.updates
        self._lag = Lag()
        self._arrivals: dict[int, Arrivals] = {}
        self._optimizer = state.optimizer
        self._metrics = state.metrics
        self._sums: dict[int, StepSum] = {}
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
            besides=state.published,
        )
        self._replication = Replication()
        self._held: _Updated | None = None
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

    def handle(self, sender: Sender, message: FromOutside, now: float) -> list[Output]:
        """Take one message. PeerError where it is refused; nothing has changed then."""
        match message:
            case Push():
                return self._push(sender, message, now)
            case Pull():
                return self._pull(sender, message)
            case TakeSnapshot():
                return self._take_snapshot(message.version)
            case Follow():
                return self._copy(sender, message)
            case Replicated():
                return self._replicated(sender, message, now)
            case Lead():
                return self._lead(message, now)

    def tick(self, now: float) -> list[Output]:
        """Call at least every tenth of a second."""
        if not self._replication.is_late(now) and now - self._told_at < _REPEAT_SECONDS:
            return []
        return [self._tell(now)]

    def forget(self, sender: Sender, now: float) -> list[Output]:
        """The sender is gone: do not answer it any more."""
        self._waiting.forget(sender)
        self._lag.forget(sender)
        return [self._tell(now)] if self._replication.forget(sender) else []

    def follow(self, step: Replicate) -> None:
        """As a follower: apply what the leader has. PeerError where it is not the next step, or does not fit."""
        if step.version != self.version or self._held is not None:
            raise PeerError("stale", f"the step after version {step.version}, this follower has {self.version}")
        if len(step.payload) != 1 or step.payload[0].size != self.buffers.size:
            sizes = [vector.size for vector in step.payload]
            raise PeerError("bad-size", f"a step of {sizes} numbers, this shard owns {self.buffers.size}")
        self._advance(self._applied(step.version, step.payload, step.metrics, None))

    def _push(self, sender: Sender, push: Push, now: float) -> list[Output]:
        block = self._check(push)
        outputs: list[Output] = []
        if push.step < self.before or push.step in self.beyond or self._holds_back(push.step):
            self.duplicates += 1
        else:
            gradient = self._gradient(push)
            self.traffic.dense += 4 * self.buffers.size
            outputs = self._count(sender, push, block, gradient, now)
        if push.then is not None:
            outputs += self._answer(sender, Want(Versions(*push.then), held=push.version)) or []
        return outputs

    def _holds_back(self, step: int) -> bool:
        """Whether the step is summed and applied already, and only the follower is waited for."""
        return self._held is not None and self._held.step == step

    def _same_run(self, run: bytes) -> None:
        if run != self.rules.run:
            raise PeerError("wrong-run", f"this server works on run {self.rules.run.hex()}, not {run.hex()}")

    def _check(self, push: Push) -> Block:
        self._same_run(push.run)
        block = Block(push.start, push.stop)
        if not is_block(block, self.rules.microbatches):
            text = f"[{push.start}, {push.stop}) is no block of {self.rules.microbatches} microbatches"
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
        return self._decoder.gradient(push)

    def _count(self, sender: Sender, push: Push, block: Block, gradient: Array, now: float) -> list[Output]:
        if self.rules.consistency.is_synchronous:
            if push.step not in self._sums:
                self._sums[push.step] = StepSum(self.rules.microbatches, self._partial_sums)
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

    def _apply_sums(self, now: float) -> list[Output]:
        """The steps that are whole, in order, as far as the follower lets us."""
        outputs: list[Output] = []
        while self._held is None and (total := self._sums.get(self.before)) is not None and total.is_complete:
            outputs += self._apply_sum(self.before, total, now)
        return outputs

    def _apply_sum(self, step: int, total: StepSum, now: float) -> list[Output]:
        parts, metrics = total.parts()
        gradient = None
        if self._replication.sender is not None:
            gradient = self._one(parts)
            parts = (gradient,)
        updated = self._applied(step, parts, metrics, gradient)
        del self._sums[step]
        total.close()
        outputs = self._hand_over(updated, now)
        if self._replication.is_waited_for:
            self._held = updated
            return outputs
        return outputs + self._publish(updated, now)

    def _applied(self, step: int, parts: tuple[Array, ...], metrics: Metrics, gradient: Array | None) -> _Updated:
        before = self.weights
        out = self._updated(parts, Moment(self.version, self._updates))
        return _Updated(step, out, self._expected(before, out, self.rules.consistency.delay), metrics, gradient)

    def _publish(self, updated: _Updated, now: float) -> list[Output]:
        self._advance(updated)
        return [StepApplied(updated.step, self.version, 0, self._metrics), *self._news(now)]

    def _advance(self, updated: _Updated) -> None:
        self._metrics = updated.metrics
        self._mark(updated.step)
        is_milestone = self.rules.is_milestone(self.version)
        self._published.add(self.version, updated.weights, is_pinned=is_milestone, ahead=updated.ahead)
        if updated.gradient is not None:
            self.buffers.give(updated.gradient)

    def _one(self, parts: tuple[Array, ...]) -> Array:
        """The sum of the parts, which is what an update makes of two, too."""
        out = self.buffers.take()
        left, *right = parts
        if right:
            np.add(left, right[0], out=out)
        else:
            np.copyto(out, left)
        return out

    def _hand_over(self, updated: _Updated, now: float) -> list[Output]:
        replication = self._replication
        if updated.gradient is None or replication.sender is None or replication.following is None:
            return []
        replication.sent(now)
        # Where nobody is waited for the array is used again before this has left.
        gradient = updated.gradient if replication.is_waited_for else updated.gradient.copy()
        message = Replicate(replication.following, self.version, updated.metrics, (gradient,))
        return [Send(replication.sender, message)]

    def _copy(self, sender: Sender, follow: Follow) -> list[Output]:
        self._same_run(follow.run)
        if follow.shard != self.number:
            raise PeerError("bad-shard", f"this is shard {self.number}, not {follow.shard}")
        if not self.rules.consistency.is_synchronous:
            raise PeerError("bad-role", f"under {self.rules.consistency} nobody can follow")
        if self._held is not None or not self._replication.begin(sender, follow.following):
            # It asks again.
            return []
        arrays = {"weights": self.weights}
        arrays |= {f"{_OPTIMIZER}{name}": array for name, array in self._optimizer.items()}
        arrays |= {f"{_PUBLISHED}{name}": array for name, array in self._published.besides.items()}
        # Copies: the arrays go on being used while this travels.
        payload = tuple(array.copy() for array in arrays.values())
        copy = Copy(follow.following, self.version, self._updates, self._metrics, tuple(arrays), payload)
        return [Send(sender, copy)]

    def _replicated(self, sender: Sender, replicated: Replicated, now: float) -> list[Output]:
        replication = self._replication
        if replicated.following != replication.following:
            raise PeerError("not-following", "this leader has no such follower (any more); follow anew")
        replication.sender = sender
        was_waited_for = replication.is_waited_for
        replication.has(replicated.version, self.version)
        if self._held is not None:
            if replicated.version <= self.version:
                return self._hand_over(self._held, now)
            return self._let_out(now)
        return [] if replication.is_waited_for == was_waited_for else [self._tell(now)]

    def _lead(self, lead: Lead, now: float) -> list[Output]:
        self._same_run(lead.run)
        if lead.incarnation != self.incarnation:
            # Meant for another leader of the shard: the one before, or the one that took our place.
            return []
        if self._replication.agreed(lead.gone) and self._held is not None:
            return self._let_out(now)
        return []

    def _let_out(self, now: float) -> list[Output]:
        """Publish what was held back, and what is whole by now."""
        updated, self._held = self._held, None
        if updated is None:
            raise RuntimeError("nothing is held back")
        return self._publish(updated, now) + self._apply_sums(now)

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
        replication = self._replication
        standing = (self.incarnation, replication.relied_on, replication.given_up)
        return Send(COORDINATOR, Applied(self.rules.run, self.number, self.before, beyond, *counted, *standing))

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
        if self.beyond or self._arrivals or self._held is not None or not is_wanted:
            return []
        self._snapshots.discard(self.version)
        # Copies: the arrays go on being used while the snapshot travels and is written.
        payload = tuple(array.copy() for array in (self.weights, *self._optimizer.values()))
        names = tuple(self._optimizer)
        return [Send(COORDINATOR, Snapshot(self.rules.run, self.number, self.version, self._metrics, names, payload))]
