"""The steps that are being worked on, and who gets which part of them next. No sockets, no clock.

Under bsp and ssp:N the steps lowest … lowest+N+1 may be open: the last of them is given out ahead, to be computed as
soon as its weights are there, so that nobody waits for a message that could have come before. Under bsp each active
worker takes one share of each step, in proportion to its speed. Under ssp and asp whoever is free takes such a share of
the first step that has some left, and no step from a milestone on is opened before the milestone is reached: there all
shards hold the same steps.
"""

from collections.abc import Iterable, Sequence

from ps_vae.ps.backups import helper_for, late_work
from ps_vae.ps.blocks import Block
from ps_vae.ps.members import Client
from ps_vae.ps.rules import ASYNCHRONOUS_WINDOW, RunRules
from ps_vae.ps.work import Lease, StepWork, fair_share, usual_pace

__all__ = ["LEASE_SECONDS", "Backlog"]

# The least time that work may take before it is given to somebody else, and what a worker of unknown speed gets; with
# local steps it gets a second more for each.
LEASE_SECONDS = 1.0
_FIRST_LEASE_SECONDS = 10.0
# How many times longer than expected a worker may take.
_PATIENCE = 8.0
# Where pushes are slow rather than lost, computing them again makes it worse: the wait doubles, up to so many times.
_DOUBLINGS = 6


class Backlog:
    """Open steps.

    backup_workers  that may be backed by others at the same time

    Invariants: steps below `lowest` are applied by every shard, and closed;
                a microbatch of an open step is in its pool or in exactly one of its leases;
                a backup has the blocks of one lease that is not delivered;
                no step at or above `limit` is ever opened.
    """

    def __init__(self, rules: RunRules, lowest: int, backup_workers: int = 0) -> None:
        self.rules = rules
        self.backup_workers = backup_workers
        self.backed_up = 0
        self.lowest = lowest
        self.limit = rules.steps
        self.opened = lowest
        self.reissued = 0
        self.steps: dict[int, StepWork] = {}
        self._tickets = 0
        # Leases of steps that were finished by others: their workers are still busy with them.
        self._outlived: dict[int, Lease] = {}

    def next_work(self, worker: Client, active: Iterable[Client], now: float) -> Lease | None:
        """What an idle worker is to do, or None where there is nothing for it now."""
        peers = [peer for peer in active if peer is not worker]
        for work in self._lost_work(worker, peers):
            free = [peer for peer in peers if peer.idle or self._is_ahead(peer)]
            return self._lease(worker, work, max(1, self._share(work, worker, free, peers)), now)
        if not self.rules.consistency.is_synchronous:
            return self._next_share(worker, peers, now)
        for step in range(self.lowest, self._window_end()):
            work = self._open(step)
            if worker.session in work.claimed or not work.pool or not _may_do(worker, work, peers):
                continue
            work.claimed.add(worker.session)
            waiting = [peer for peer in peers if peer.session not in work.claimed]
            share = self._share(work, worker, waiting, peers)
            if share:
                return self._lease(worker, work, share, now)
            worker.had_no_share()
        return None

    def delivered(self, worker: Client, now: float) -> None:
        """The worker has pushed its lease's blocks to every shard."""
        if (found := self.lease_of(worker)) is not None:
            work, lease = found
            if (other := work.deliver(lease)) is not None:
                self._outlived[other.ticket] = other
            work.settle(now)
        self.release(worker)

    def release(self, worker: Client) -> None:
        """The worker does not hold its lease any more."""
        if worker.lease is not None:
            self._outlived.pop(worker.lease, None)
        worker.lease, worker.outpaced = None, False

    def lease_of(self, worker: Client) -> tuple[StepWork, Lease] | None:
        """The step and the lease that a worker holds."""
        for work in self.steps.values():
            if (lease := work.find(worker.lease)) is not None:
                return work, lease
        return None

    def lost(self, worker: Client) -> None:
        """The worker will not deliver: its work, and the shares it has not come for, are anyone's."""
        if (found := self.lease_of(worker)) is not None:
            self._orphan(found[0], found[1].ticket)
        self.release(worker)
        self._release_shares(worker)

    def recall(self, worker: Client, active: Sequence[Client]) -> bool:
        """Take back work that was given ahead where lost work has to be done first: nobody else may be free for it."""
        found = self.lease_of(worker)
        if found is None or not self._is_ahead(worker) or not any(self._lost_work(worker, active)):
            return False
        self._take_back(worker, *found)
        return True

    def back_up(self, workers: Sequence[Client], now: float) -> list[tuple[Client, Lease]]:
        """Give late work to others too; who has what of it now."""
        given: list[tuple[Client, Lease]] = []
        if not self.backup_workers:
            return given
        self._notice_lost_backups(workers)
        left = self.backup_workers - sum(worker.outpaced for worker in workers)
        for work, lease, late in late_work(self.steps.values(), workers, now) if left > 0 else ():
            free = (worker for worker in workers if worker.idle or self._is_ahead(worker))
            if (helper := helper_for(work, lease, free, now)) is None:
                continue
            if (ahead := self.lease_of(helper)) is not None:
                self._take_back(helper, *ahead)
            late.outpaced = True
            self._release_shares(late)
            given.append((helper, self._assign(helper, work, lease.blocks, now, backs=lease.ticket)))
            self.backed_up += len(lease.blocks)
            left -= 1
            if not left:
                break
        return given

    def refused(self, worker: Client, ticket: int) -> int | None:
        """The result of the worker's lease cannot be used: its work is anyone's, others' first.

        Its step, None where that is applied, or the work is not this worker's any more.
        """
        for work in self.steps.values():
            if (lease := work.find(ticket)) is not None and lease.session == worker.session:
                self._orphan(work, ticket)
                work.failed.add(worker.session)
                if worker.lease == ticket:
                    self.release(worker)
                return work.step
        return None

    def advance(self, lowest: int, finished: Iterable[int], now: float) -> list[StepWork]:
        """Every shard has applied all steps below `lowest`, and the open ones that are `finished`: these are closed."""
        self.lowest = lowest
        whole = {step for step in self.steps if step < lowest} | set(finished)
        closed = [self.steps.pop(step) for step in sorted(whole)]
        for work in closed:
            for lease in (*work.leases.values(), *work.backups.values()):
                if not lease.delivered:
                    lease.deadline = now + lease.seconds if lease.deadline is None else lease.deadline
                    self._outlived[lease.ticket] = lease
        for work in self.steps.values():
            for lease in work.leases.values():
                if lease.deadline is None and self._is_computable(work.step):
                    lease.deadline, lease.began = now + lease.seconds, now
        return closed

    def overdue(self, now: float) -> list[Lease]:
        """Leases whose time is over; their work is anyone's from now on."""
        late = []
        for work in self.steps.values():
            for lease in (*work.leases.values(), *work.backups.values()):
                if not lease.delivered and lease.deadline is not None and lease.deadline < now:
                    self._orphan(work, lease.ticket)
                    late.append(lease)
        for ticket in [t for t, lease in self._outlived.items() if lease.deadline is not None and lease.deadline < now]:
            late.append(self._outlived.pop(ticket))
        return late

    def reissue_undelivered(self, now: float) -> None:
        """A step that nobody works on and that is not applied lost a push on the way: all of it is anyone's again."""
        for work in self.steps.values():
            in_turn = not self.rules.consistency.is_synchronous or work.step == self.lowest
            patience = LEASE_SECONDS * 2 ** min(work.reissues, _DOUBLINGS)
            if in_turn and work.settled_at is not None and work.settled_at + patience < now:
                work.reissues += 1
                for ticket in list(work.leases):
                    self._orphan(work, ticket)

    def stop_opening(self) -> int:
        """Open no further step; returns the version at which all open ones are applied."""
        self.limit = max(self.opened, self.lowest)
        return self.limit

    def hurry(self, seconds: float, now: float) -> None:
        """Let no lease last longer than `seconds` from now, or from when its weights are published."""
        for work in self.steps.values():
            for lease in (*work.leases.values(), *work.backups.values()):
                lease.seconds = min(lease.seconds, seconds)
                lease.deadline = None if lease.deadline is None else min(lease.deadline, now + seconds)

    def _is_ahead(self, worker: Client) -> bool:
        """Whether its work waits for weights that do not exist yet."""
        found = self.lease_of(worker)
        return found is not None and found[1].deadline is None

    def _window_end(self) -> int:
        bound, delay = self.rules.consistency.bound, self.rules.consistency.delay
        return min(self.limit, self.lowest + (ASYNCHRONOUS_WINDOW if bound is None else bound + delay + 2))

    def _is_computable(self, step: int) -> bool:
        return self.rules.consistency.usable(step).low <= self.lowest

    def _lost_work(self, worker: Client, peers: Sequence[Client]) -> Iterable[StepWork]:
        for step in sorted(self.steps):
            work = self.steps[step]
            is_lost = work.orphaned and work.pool and self._is_computable(step) and step < self.limit
            if is_lost and _may_do(worker, work, peers):
                yield work

    def _open(self, step: int) -> StepWork:
        self.opened = max(self.opened, step + 1)
        if step not in self.steps:
            merges, separate = self.rules.consistency.is_synchronous, self.rules.aggregation is not None
            self.steps[step] = StepWork(step, self.rules.microbatches, merges, separate)
        return self.steps[step]

    def _next_share(self, worker: Client, peers: list[Client], now: float) -> Lease | None:
        milestone = (self.lowest // self.rules.milestone + 1) * self.rules.milestone
        step = self._first_with_work(worker, peers)
        if step >= min(self._window_end(), milestone):
            return None
        work = self._open(step)
        return self._lease(worker, work, max(1, self._share(work, worker, peers, peers)), now)

    def _first_with_work(self, worker: Client, peers: list[Client]) -> int:
        """The first step of which something has not been given out that this worker may do."""
        left = (step for step, work in self.steps.items() if work.pool and _may_do(worker, work, peers))
        return min(left, default=max(self.opened, self.lowest))

    def _share(self, work: StepWork, worker: Client, waiting: list[Client], peers: list[Client]) -> int:
        if not waiting:
            return work.left
        usual = usual_pace((worker, *peers)) or 1.0
        others = sum(1.0 / (peer.pace or usual) for peer in waiting)
        return fair_share(work.left, 1.0 / (worker.pace or usual), others)

    def _lease(self, worker: Client, work: StepWork, share: int, now: float) -> Lease | None:
        # Where steps are taken in order; elsewhere the rest of a step would go out in more, smaller blocks.
        blocks = work.take(share, worker.blocks if self.rules.consistency.is_synchronous else ())
        if not blocks:
            return None
        work.orphaned = work.orphaned and bool(work.pool)
        worker.blocks = blocks
        return self._assign(worker, work, blocks, now)

    def _assign(
        self, worker: Client, work: StepWork, blocks: tuple[Block, ...], now: float, *, backs: int | None = None
    ) -> Lease:
        self._tickets += 1
        size = sum(len(block) for block in blocks)
        first = _FIRST_LEASE_SECONDS + size * (self.rules.batches - 1)
        seconds = first if worker.pace is None else max(LEASE_SECONDS, _PATIENCE * worker.pace * size)
        lease = Lease(self._tickets, worker.session, work.step, blocks, seconds, backs=backs)
        if self._is_computable(work.step):
            lease.deadline, lease.began = now + seconds, now
        (work.leases if backs is None else work.backups)[lease.ticket] = lease
        worker.ticket = worker.lease = lease.ticket
        worker.microbatches = size
        worker.idle = False
        return lease

    def _orphan(self, work: StepWork, ticket: int) -> None:
        self.reissued += work.orphan(ticket)

    def _take_back(self, worker: Client, work: StepWork, lease: Lease) -> None:
        """Work that was given ahead, and that the worker comes for again."""
        was_orphaned = work.orphaned
        work.orphan(lease.ticket)
        work.orphaned = was_orphaned
        work.claimed.discard(worker.session)
        worker.lease, worker.idle = None, True

    def _notice_lost_backups(self, workers: Sequence[Client]) -> None:
        for worker in workers:
            if worker.outpaced and (found := self.lease_of(worker)) is not None:
                work, lease = found
                worker.outpaced = work.backup_of(lease.ticket) is not None

    def _release_shares(self, worker: Client) -> None:
        """The shares that it has not come for are anyone's."""
        for work in self.steps.values():
            work.orphaned = work.orphaned or (bool(work.pool) and worker.session not in work.claimed)


def _may_do(worker: Client, work: StepWork, peers: Sequence[Client]) -> bool:
    """Who could not do a part of a step is given more of it where nobody else is left to."""
    return worker.session not in work.failed or all(peer.session in work.failed for peer in peers)
