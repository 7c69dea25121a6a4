"""The steps that are being worked on, and who gets which part of them next. No sockets, no clock.

Under bsp and ssp:N the steps lowest … lowest+N+1 may be open: the last of them is given out ahead, to be computed as
soon as its weights are there, so that nobody waits for a message that could have come before. Under bsp each active
worker takes one share of each step, in proportion to its speed; where a step takes a median, an equal one. Under ssp
and asp whoever is free takes a share by its speed of the first step that has some left, and no step from a milestone on
is opened before the milestone is reached: there all shards hold the same steps.
"""

from collections.abc import Iterable, Sequence

from ps_vae.ps.backups import helper_for, late_work
from ps_vae.ps.blocks import Block
from ps_vae.ps.crew import Crew
from ps_vae.ps.members import Client
from ps_vae.ps.rules import ASYNCHRONOUS_WINDOW, RunRules
from ps_vae.ps.work import Lease, StepWork, fair_share

__all__ = ["LEASE_SECONDS", "Backlog"]

# The least time that work may take before it is given to somebody else, and what a worker of unknown speed gets; with
# local steps it gets a second more for each.
LEASE_SECONDS = 1.0
_FIRST_LEASE_SECONDS = 10.0
# How slow a worker is it says itself.
_LONGEST_LEASE_SECONDS = 3600.0
# How many times longer than expected a worker may take.
_PATIENCE = 8.0
# Where pushes are slow rather than lost, computing them again makes it worse: the wait doubles, up to so many times.
_DOUBLINGS = 6


class Backlog:
    """Open steps.

    backup_workers  that may be backed by others at the same time
    tickets         that were given out before

    Invariants: steps below `lowest` are applied by every shard, and closed;
                a microbatch of an open step is in its pool or in exactly one of its leases;
                a backup has the blocks of one lease that is not delivered;
                `crew` are the workers that are active;
                no step at or above `limit` is ever opened.
    """

    def __init__(self, rules: RunRules, lowest: int, backup_workers: int = 0, tickets: int = 0) -> None:
        self.rules = rules
        self.backup_workers = backup_workers
        self.backed_up = 0
        self.lowest = lowest
        self.limit = rules.steps
        self.opened = lowest
        self.reissued = 0
        self.steps: dict[int, StepWork] = {}
        self.crew = Crew()
        self._tickets = tickets
        # Leases of steps that were finished by others: their workers are still busy with them.
        self._outlived: dict[int, Lease] = {}

    def note(self, worker: Client) -> None:
        """The worker is active or not, at the pace that it has now."""
        if not worker.is_active:
            self._without(worker)
            return
        for work in self.steps.values() if self.crew.put(worker) else ():
            if worker.session in work.claimed:
                work.served.put(worker)

    def next_work(self, worker: Client, now: float) -> Lease | None:
        """What an idle worker is to do, or None where there is nothing for it now."""
        self.note(worker)
        for work in self._lost_work():
            if self._may_do(worker, work):
                return self._lease(worker, work, max(1, self._share(work, worker, self._not_free(worker))), now)
        if not self.rules.consistency.is_synchronous:
            return self._next_share(worker, now)
        for step in range(self.lowest, self._window_end()):
            work = self._open(step)
            if worker.session in work.claimed or not work.pool or not self._may_do(worker, work):
                continue
            work.claim(worker)
            share = self._share(work, worker, work.served)
            if share:
                return self._lease(worker, work, share, now)
            worker.had_no_share()
        return None

    def delivered(self, worker: Client, now: float) -> None:
        """The worker has pushed its lease's blocks to every shard."""
        if (found := self.lease_of(worker)) is not None:
            work, lease = found
            if (other := work.deliver(lease, now)) is not None:
                self._outlived[other.ticket] = other
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
        self._without(worker)
        self._release_shares(worker)

    @property
    def has_lost_work(self) -> bool:
        """Whether there is work that anyone may take who can do it."""
        return any(self._lost_work())

    def recall(self, worker: Client) -> bool:
        """Take back work that was given ahead where lost work has to be done first: nobody else may be free for it."""
        found = self.lease_of(worker)
        if found is None or not self._is_ahead(worker):
            return False
        if not any(self._may_do(worker, work) for work in self._lost_work()):
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
            self._without(late)
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
                    self._without(worker)
                return work.step
        return None

    def advance(self, lowest: int, finished: Iterable[int], now: float) -> list[StepWork]:
        """Every shard has applied all steps below `lowest`, and the open ones that are `finished`: these are closed."""
        has_moved, self.lowest = lowest > self.lowest, lowest
        whole = {step for step in self.steps if step < lowest} | set(finished)
        closed = [self.steps.pop(step) for step in sorted(whole)]
        for work in closed:
            for lease in (*work.leases.values(), *work.backups.values()):
                if not lease.delivered:
                    lease.deadline = now + lease.seconds if lease.deadline is None else lease.deadline
                    self._outlived[lease.ticket] = lease
        for work in self.steps.values() if has_moved else ():
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

    def reissue_delivered(self) -> None:
        """A shard has another leader: what was pushed to the one before, and is not applied, is anyone's again."""
        for work in self.steps.values():
            for lease in list(work.leases.values()):
                if lease.delivered:
                    self._orphan(work, lease.ticket)

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

    def excuse(self, seconds: float, now: float) -> None:
        """Nobody could be heard for so long: no lease runs out because of it."""
        leases = [*self._outlived.values()]
        for work in self.steps.values():
            leases += (*work.leases.values(), *work.backups.values())
        for lease in leases:
            if lease.deadline is not None:
                lease.deadline = min(lease.deadline + seconds, now + lease.seconds)
            if lease.began is not None:
                lease.began = min(now, lease.began + seconds)
        for work in self.steps.values():
            if work.settled_at is not None:
                work.settled_at = min(now, work.settled_at + seconds)

    def _without(self, worker: Client) -> None:
        """The worker is not active any more."""
        self.crew.drop(worker)
        for work in self.steps.values():
            work.served.drop(worker)

    def _is_ahead(self, worker: Client) -> bool:
        """Whether its work waits for weights that do not exist yet."""
        found = self.lease_of(worker)
        return found is not None and found[1].deadline is None

    def _window_end(self) -> int:
        bound, delay = self.rules.consistency.bound, self.rules.consistency.delay
        return min(self.limit, self.lowest + (ASYNCHRONOUS_WINDOW if bound is None else bound + delay + 2))

    def _is_computable(self, step: int) -> bool:
        return self.rules.consistency.usable(step).low <= self.lowest

    def _lost_work(self) -> Iterable[StepWork]:
        for step in sorted(self.steps):
            work = self.steps[step]
            if work.orphaned and work.pool and self._is_computable(step) and step < self.limit:
                yield work

    def _may_do(self, worker: Client, work: StepWork) -> bool:
        """Who could not do a part of a step is given more of it where nobody else is left to."""
        return worker.session not in work.failed or all(peer.session in work.failed for peer in self.crew)

    def _open(self, step: int) -> StepWork:
        self.opened = max(self.opened, step + 1)
        if step not in self.steps:
            merges, separate = self.rules.consistency.is_synchronous, self.rules.aggregation is not None
            self.steps[step] = StepWork(step, self.rules.microbatches, merges, separate)
        return self.steps[step]

    def _next_share(self, worker: Client, now: float) -> Lease | None:
        milestone = (self.lowest // self.rules.milestone + 1) * self.rules.milestone
        step = self._first_with_work(worker)
        if step >= min(self._window_end(), milestone):
            return None
        work = self._open(step)
        return self._lease(worker, work, max(1, self._share(work, worker, self._alone(worker))), now)

    def _first_with_work(self, worker: Client) -> int:
        """The first step of which something has not been given out that this worker may do."""
        left = (step for step, work in self.steps.items() if work.pool and self._may_do(worker, work))
        return min(left, default=max(self.opened, self.lowest))

    def _share(self, work: StepWork, worker: Client, served: Crew) -> int:
        """Of what is left of a step, where all but those who are `served`, the worker among them, take some too."""
        if len(served) == len(self.crew):
            return work.left
        if self.rules.aggregation is not None:
            # How fast it is a worker says itself: a liar would get most of a step, and could not be outvoted.
            return fair_share(work.left, 1.0, len(self.crew) - len(served))
        usual = self.crew.usual_pace
        return fair_share(work.left, 1.0 / (worker.pace or usual), self.crew.speed_without(served, usual))

    def _alone(self, worker: Client) -> Crew:
        alone = Crew()
        alone.put(worker)
        return alone

    def _not_free(self, worker: Client) -> Crew:
        """The worker, and those who will take no lost work."""
        crew = self._alone(worker)
        for peer in self.crew:
            if not peer.idle and not self._is_ahead(peer):
                crew.put(peer)
        return crew

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
        seconds = _FIRST_LEASE_SECONDS + size * (self.rules.batches - 1)
        if worker.pace is not None:
            seconds = min(max(LEASE_SECONDS, _PATIENCE * worker.pace * size), _LONGEST_LEASE_SECONDS)
        lease = Lease(self._tickets, worker.session, work.step, blocks, seconds, backs=backs)
        if self._is_computable(work.step):
            lease.deadline, lease.began = now + seconds, now
        if backs is None:
            work.lend(lease)
        else:
            work.backups[lease.ticket] = lease
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
        work.unclaim(worker)
        worker.lease, worker.idle = None, True

    def _notice_lost_backups(self, workers: Sequence[Client]) -> None:
        for worker in workers:
            if worker.outpaced and (found := self.lease_of(worker)) is not None:
                work, lease = found
                worker.outpaced = work.backup_of(lease.ticket) is not None
                self.note(worker)

    def _release_shares(self, worker: Client) -> None:
        """The shares that it has not come for are anyone's."""
        for work in self.steps.values():
            work.orphaned = work.orphaned or (bool(work.pool) and worker.session not in work.claimed)
