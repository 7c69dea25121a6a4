"""A shard: one slice of the parameter vector, and the steps that are being collected for it. No sockets, no clock.

message         when                                         effect
push            none of it has been counted, or bsp          bsp: counted, in its place in the step's tree, and applied
                and not all of it                            when the step is whole; ssp and asp: applied
                it has                                       dropped: a resent or re-issued push is a no-op
                run, step, block, version, size, encoding    refused (PeerError): nothing changes
                or a number in it is wrong                   and counted; whose gradient cannot be used is told on
                without the permit that the run wants        refused, and nobody is told on: whose it is is not known
pull, push.then a published version is wanted                answered
                a later one                                  answered when it is published
                only versions that are gone                  a pull is refused: `gone`; push.then is forgotten
take-snapshot   at that version, or before it                sent now, or when it is reached
follow          nobody else is waited for                    a copy of the state, then every step (see `replication`)
replicated      of the follower that is waited for           the step that it has is published
lead            -                                            the follower that it names is not waited for any more
who             -                                            `present`, and what is applied
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import BlockCodec
from ps_vae.ps.codecs.pull import PullCodec
from ps_vae.ps.consistency import Versions
from ps_vae.ps.copies import copy_of
from ps_vae.ps.identity import FIRST, ServerIdentity
from ps_vae.ps.messages import (
    Applied,
    Follow,
    Lead,
    Present,
    Pull,
    Push,
    Replicate,
    Replicated,
    Snapshot,
    TakeSnapshot,
    Who,
)
from ps_vae.ps.open_steps import OpenSteps
from ps_vae.ps.outbox import COORDINATOR, Output, Send, Sender, StepApplied
from ps_vae.ps.permits import is_permitted
from ps_vae.ps.publication import Want
from ps_vae.ps.readers import Readers
from ps_vae.ps.record import record
from ps_vae.ps.reduction import Metrics
from ps_vae.ps.refusals import UNUSABLE, Refusals
from ps_vae.ps.replication import Replication
from ps_vae.ps.rules import RunRules
from ps_vae.ps.state import ShardState
from ps_vae.ps.traffic import Traffic
from ps_vae.ps.trained_slice import TrainedSlice, Updated
from ps_vae.ps.update import LookAhead, Update

__all__ = ["FromOutside", "Shard"]

Array = npt.NDArray[np.float32]

# A shard tells the coordinator where it is at least this often, so that a lost message costs no more.
_REPEAT_SECONDS = 1.0

FromOutside = Push | Pull | TakeSnapshot | Follow | Replicated | Lead | Who


@record
class _Unpublished:
    """A step that is summed and applied, and not published yet.

    gradient  what the follower gets, if there is one: an array of our buffers
    """

    step: int
    updated: Updated
    metrics: Metrics
    gradient: Array | None


class Shard:
    """One slice of the parameter vector, who pushes to it and who wants it.

    Invariants: a step is in the weights once, and is open until it is;
                what is published is what the follower has too, where one is waited for.

    update      the optimizer's step
    buffers     the pool for the weights that are published, of this slice's size
    is_finite   whether an array has neither NaN nor infinity in it
    look_ahead  what workers compute on instead of the weights, if anything, where their gradients come late
    codec       how the gradients of pushes are written; None: as they are
    pull        how weights are written for workers; None: as they are
    name_of     what an element of the slice is called, for people
    identity    of the server
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
        name_of: Callable[[int], str] = "element {}".format,
        identity: ServerIdentity = FIRST,
    ) -> None:
        self.number = number
        self.rules = rules
        self.identity = identity
        self.traffic = Traffic()
        self.incarnation = 0
        self.refusals = Refusals()
        self.buffers = buffers
        self._slice = TrainedSlice(number, rules, state, update, buffers, is_finite, look_ahead, pull)
        self._open = OpenSteps(number, rules, buffers.size, is_finite, codec, name_of)
        self._readers = Readers(self._slice, rules.consistency.delay, self.traffic)
        self._replication = Replication()
        self._unpublished: _Unpublished | None = None
        self._snapshots: set[int] = set()
        self._told_at = float("-inf")

    @property
    def version(self) -> int:
        """How many steps, from the first, are in the weights."""
        return self._slice.version

    @property
    def before(self) -> int:
        """The same: all steps below it are in the weights."""
        return self._slice.before

    @property
    def beyond(self) -> set[int]:
        """The steps from there on that are in the weights."""
        return self._slice.beyond

    @property
    def weights(self) -> Array:
        """The newest published slice; not to be written to."""
        return self._slice.weights

    @property
    def duplicates(self) -> int:
        """Pushes of which nothing was new."""
        return self._open.duplicates

    def handle(self, sender: Sender, message: FromOutside, now: float) -> list[Output]:
        """Take one message. PeerError where it is refused; nothing has changed then but the account of refusals."""
        try:
            return self._handle(sender, message, now)
        except PeerError as error:
            self._account(message, error)
            raise

    def tick(self, now: float) -> list[Output]:
        """Call at least every tenth of a second."""
        if not self._replication.is_late(now) and now - self._told_at < _REPEAT_SECONDS:
            return []
        return [self._tell(now)]

    def forget(self, sender: Sender, now: float) -> list[Output]:
        """The sender is gone: do not answer it any more."""
        self._readers.forget(sender)
        return [self._tell(now)] if self._replication.forget(sender) else []

    def follow(self, step: Replicate) -> None:
        """As a follower: apply what the leader has. PeerError where it is not the next step, or does not fit."""
        if step.version != self.version or self._unpublished is not None:
            raise PeerError("stale", f"the step after version {step.version}, this follower has {self.version}")
        if len(step.payload) != 1 or step.payload[0].size != self.buffers.size:
            sizes = [vector.size for vector in step.payload]
            raise PeerError("bad-size", f"a step of {sizes} numbers, this shard owns {self.buffers.size}")
        updated = self._slice.update(step.payload, self.rules.consistency.delay)
        self._slice.publish(updated, step.version, step.metrics)

    def _handle(self, sender: Sender, message: FromOutside, now: float) -> list[Output]:
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
            case Who():
                return self._introduce(message, now)

    def _account(self, message: FromOutside, error: PeerError) -> None:
        self.refusals.count(error.code)
        if not isinstance(message, Push) or error.code not in UNUSABLE:
            return
        if self.refusals.blame(message.session, message.ticket, error.code):
            # With the next tick, however many come: the coordinator does not take the worker's word for it.
            self._told_at = float("-inf")

    def _is_ours(self, run: bytes, number: int) -> None:
        if run != self.rules.run:
            raise PeerError("wrong-run", f"this server works on run {self.rules.run.hex()}, not {run.hex()}")
        if number != self.number:
            raise PeerError("not-here", f"this server has shard {self.number}, not {number} (any more)")

    def _push(self, sender: Sender, push: Push, now: float) -> list[Output]:
        self._is_ours(push.run, push.shard)
        if self.rules.secret:
            self._is_permitted(push)
        block = self._open.check(push, self.version)
        outputs: list[Output] = []
        if self._slice.has(push.step) or self._holds_back(push.step):
            self._open.duplicates += 1
        else:
            gradient = self._open.gradient(push)
            self.traffic.dense += 4 * self.buffers.size
            outputs = self._count(sender, push, block, gradient, now)
        if push.then is not None:
            outputs += self._readers.answer(sender, Want(Versions(*push.then), held=push.version)) or []
        return outputs

    def _is_permitted(self, push: Push) -> None:
        """Before anything else of it is looked at, so that nobody is blamed for what another has pushed."""
        if not is_permitted(self.rules.secret, push):
            block, step = f"[{push.start}, {push.stop})", push.step
            how = "no permit" if push.permit is None else "another permit"
            text = f"{block} of step {step} was not given to this session with ticket {push.ticket}: the push has {how}"
            raise PeerError("not-yours", text)

    def _holds_back(self, step: int) -> bool:
        """Whether the step is summed and applied already, and only the follower is waited for."""
        return self._unpublished is not None and self._unpublished.step == step

    def _count(self, sender: Sender, push: Push, block: Block, gradient: Array, now: float) -> list[Output]:
        if self.rules.consistency.is_synchronous:
            self._open.add(push, block, gradient)
            return self._apply_sums(now)
        outputs = self._apply_block(sender, push, block, gradient, now)
        self._open.done_with(gradient)
        return outputs

    def _apply_sums(self, now: float) -> list[Output]:
        """The steps that are whole, in order, as far as the follower lets us."""
        outputs: list[Output] = []
        while self._unpublished is None and (total := self._open.whole(self.before)) is not None:
            outputs += self._apply_sum(self.before, *total.parts(), now)
        return outputs

    def _apply_sum(self, step: int, parts: tuple[Array, ...], metrics: Metrics, now: float) -> list[Output]:
        gradient = None
        if self._replication.sender is not None:
            gradient = self._one(parts)
            parts = (gradient,)
        updated = self._slice.update(parts, self.rules.consistency.delay)
        self._open.close(step)
        applied = _Unpublished(step, updated, metrics, gradient)
        outputs = self._hand_over(applied, now)
        if self._replication.is_waited_for:
            self._unpublished = applied
            return outputs
        return outputs + self._publish(applied, now)

    def _one(self, parts: tuple[Array, ...]) -> Array:
        """The sum of the parts, which is what an update makes of two, too."""
        out = self.buffers.take()
        left, *right = parts
        if right:
            np.add(left, right[0], out=out)
        else:
            np.copyto(out, left)
        return out

    def _publish(self, applied: _Unpublished, now: float) -> list[Output]:
        self._slice.publish(applied.updated, applied.step, applied.metrics)
        if applied.gradient is not None:
            self.buffers.give(applied.gradient)
        return [StepApplied(applied.step, self.version, 0, applied.metrics), *self._news(now)]

    def _apply_block(self, sender: Sender, push: Push, block: Block, gradient: Array, now: float) -> list[Output]:
        step = self._open.arrive(push, block, max(0, self.version - push.version))
        if step is None:
            return []
        share = len(block) / self.rules.microbatches
        trust = self._readers.lag.trust_in_push(sender, self._slice.updates)
        updated = self._slice.update((gradient,), self._readers.lag.mean, share=share, trust=trust)
        if not step.is_complete:
            self._slice.publish(updated)
            return self._readers.answers()
        self._open.close(push.step)
        self._slice.publish(updated, push.step, step.metrics)
        count = self.before + len(self.beyond)
        return [StepApplied(push.step, count, step.staleness, step.metrics), *self._news(now)]

    def _copy(self, sender: Sender, follow: Follow) -> list[Output]:
        self._is_ours(follow.run, follow.shard)
        if not self.rules.consistency.is_synchronous:
            raise PeerError("bad-role", f"under {self.rules.consistency} nobody can follow")
        if self._unpublished is not None or not self._replication.begin(sender, follow.following):
            # It asks again.
            return []
        return [Send(sender, copy_of(self._slice, follow.following))]

    def _hand_over(self, applied: _Unpublished, now: float) -> list[Output]:
        replication = self._replication
        if applied.gradient is None or replication.sender is None or replication.following is None:
            return []
        replication.sent(now)
        # Where nobody is waited for the array is used again before this has left.
        gradient = applied.gradient if replication.is_waited_for else applied.gradient.copy()
        message = Replicate(replication.following, self.version, applied.metrics, (gradient,))
        return [Send(replication.sender, message)]

    def _replicated(self, sender: Sender, replicated: Replicated, now: float) -> list[Output]:
        replication = self._replication
        if replicated.following != replication.following:
            raise PeerError("not-following", "this leader has no such follower (any more); follow anew")
        replication.sender = sender
        was_waited_for = replication.is_waited_for
        replication.has(replicated.version, self.version)
        if self._unpublished is not None:
            if replicated.version <= self.version:
                return self._hand_over(self._unpublished, now)
            return self._let_out(self._unpublished, now)
        return [] if replication.is_waited_for == was_waited_for else [self._tell(now)]

    def _lead(self, lead: Lead, now: float) -> list[Output]:
        self._is_ours(lead.run, lead.shard)
        if lead.incarnation != self.incarnation:
            # Meant for another leader of the shard: the one before, or the one that took our place.
            return []
        if self._replication.agreed(lead.gone) and self._unpublished is not None:
            return self._let_out(self._unpublished, now)
        return []

    def _introduce(self, who: Who, now: float) -> list[Output]:
        self._is_ours(who.run, self.number)
        session, address = self.identity.session, self.identity.address
        present = Present(who.run, self.number, session, address, leads=True, incarnation=self.incarnation, leader="")
        return [Send(COORDINATOR, present), self._tell(now)]

    def _let_out(self, applied: _Unpublished, now: float) -> list[Output]:
        """Publish what was held back, and what is whole by now."""
        self._unpublished = None
        return self._publish(applied, now) + self._apply_sums(now)

    def _news(self, now: float) -> list[Output]:
        return [self._tell(now), *self._due_snapshots(), *self._readers.answers()]

    def _tell(self, now: float) -> Send:
        self._told_at = now
        traffic, replication = self.traffic, self._replication
        applied = Applied(
            run=self.rules.run,
            shard=self.number,
            before=self.before,
            beyond=tuple(sorted(self.beyond)),
            pushed=traffic.pushed,
            pulled=traffic.pulled,
            shared=traffic.shared,
            dense=traffic.dense,
            incarnation=self.incarnation,
            follower=replication.relied_on,
            leaving=replication.given_up,
            refused=self.refusals.counts,
            blamed=self.refusals.blamed,
            session=self.identity.session,
            metrics=self._slice.metrics if self.number == 0 else (),
            duplicates=self.duplicates,
        )
        return Send(COORDINATOR, applied)

    def _pull(self, sender: Sender, pull: Pull) -> list[Output]:
        self._is_ours(pull.run, pull.shard)
        want = Want(Versions(*pull.want), exact=pull.exact)
        if (answer := self._readers.answer(sender, want)) is None:
            raise PeerError("gone", f"version {want.versions.high} is gone; the newest is {self.version}")
        return answer

    def _take_snapshot(self, version: int) -> list[Output]:
        if version < self.version:
            raise PeerError("gone", f"a snapshot of version {version} was asked for, the shard is at {self.version}")
        self._snapshots.add(version)
        return self._due_snapshots()

    def _due_snapshots(self) -> list[Output]:
        held = self._slice
        is_wanted = self.version in self._snapshots or held.is_milestone
        if self.beyond or self._open.arrivals or self._unpublished is not None or not is_wanted:
            return []
        self._snapshots.discard(self.version)
        # Copies: the arrays go on being used while the snapshot travels and is written.
        payload = tuple(array.copy() for array in (self.weights, *held.optimizer.values()))
        names = tuple(held.optimizer)
        return [Send(COORDINATOR, Snapshot(self.rules.run, self.number, self.version, held.metrics, names, payload))]
