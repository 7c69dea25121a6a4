"""The work of a step as the coordinator sees it: what is still to be handed out, and who has what.

Pure bookkeeping over microbatch indices; speeds and times are arguments.
"""

import bisect
from dataclasses import dataclass, field

from ps_vae.ps.blocks import Block, cover
from ps_vae.ps.crew import Crew
from ps_vae.ps.members import Client

__all__ = ["Lease", "StepWork", "fair_share"]


@dataclass(slots=True)
class Lease:
    """Blocks of a step that one worker computes.

    seconds    it may take, from the moment its weights are published
    deadline   None while they are not
    began      when they were; None while they are not
    delivered  the worker says that its pushes are on their way
    backs      of a backup: the ticket of the lease whose work it does too
    """

    ticket: int
    session: bytes
    step: int
    blocks: tuple[Block, ...]
    seconds: float
    deadline: float | None = None
    began: float | None = None
    delivered: bool = False
    backs: int | None = None

    @property
    def microbatches(self) -> int:
        return sum(len(block) for block in self.blocks)


@dataclass(slots=True)
class StepWork:
    """One open step.

    separate  whether each microbatch is a block of its own
    merges    whether lost blocks may be given out again as larger ones: where blocks are applied as they arrive, one
              that contains an applied one could not be counted
    pool      disjoint runs of microbatches that nobody has, in order
    leases    what is handed out, by ticket
    backups   what is handed out a second time, by ticket; what they back is in `leases`
    claimed   sessions that had their share
    served    those of them who are still there
    orphaned  whether the pool holds work that somebody lost: anyone may take it
    failed    sessions that had a part of it and could not do it: others come first
    left      microbatches in the pool
    undelivered  leases that nobody has said to have pushed
    reissues  how often all of it was handed out again because it did not arrive
    """

    step: int
    microbatches: int
    merges: bool = True
    separate: bool = False
    pool: list[Block] = field(default_factory=list)
    leases: dict[int, Lease] = field(default_factory=dict)
    backups: dict[int, Lease] = field(default_factory=dict)
    claimed: set[bytes] = field(default_factory=set)
    served: Crew = field(default_factory=Crew)
    orphaned: bool = False
    failed: set[bytes] = field(default_factory=set)
    settled_at: float | None = None
    reissues: int = 0
    left: int = 0
    undelivered: int = 0

    def __post_init__(self) -> None:
        self.pool, self.left = [Block(0, self.microbatches)], self.microbatches

    def claim(self, worker: Client) -> None:
        """The worker has its share."""
        self.claimed.add(worker.session)
        self.served.put(worker)

    def unclaim(self, worker: Client) -> None:
        """It may have another."""
        self.claimed.discard(worker.session)
        self.served.drop(worker)

    def take(self, share: int, before: tuple[Block, ...] = ()) -> tuple[Block, ...]:
        """`share` microbatches of the pool: the blocks `before` if they are as many and there, else the first ones.

        As few blocks as they make.
        """
        if sum(map(len, before)) == share and all(self._place(block) is not None for block in before):
            for block in before:
                self._remove(block)
            return before
        blocks: list[Block] = []
        self.left -= min(share, self.left)
        while share > 0 and self.pool:
            run = self.pool[0]
            stop = min(run.stop, run.start + share)
            if self.separate:
                blocks += (Block(index, index + 1) for index in range(run.start, stop))
            else:
                blocks += cover(run.start, stop, self.microbatches)
            share -= stop - run.start
            self.pool[:1] = [Block(stop, run.stop)] if stop < run.stop else []
        return tuple(blocks)

    def lend(self, lease: Lease) -> None:
        """Somebody has it."""
        self.leases[lease.ticket] = lease
        self.undelivered += 1

    def find(self, ticket: int | None) -> Lease | None:
        """The lease or backup with this ticket."""
        return None if ticket is None else self.leases.get(ticket) or self.backups.get(ticket)

    def backup_of(self, ticket: int) -> Lease | None:
        """What does a lease's work too."""
        return next((backup for backup in self.backups.values() if backup.backs == ticket), None)

    def deliver(self, lease: Lease, now: float) -> Lease | None:
        """It is pushed; note when the last one was. Returns the one that does the same and need not any more."""
        if lease.backs is not None:
            other = self._replace(lease)
        elif (other := self.backup_of(lease.ticket)) is not None:
            del self.backups[other.ticket]
        self.undelivered -= not lease.delivered
        lease.delivered = True
        if not self.pool and self.undelivered == 0:
            self.settled_at = now
        return other

    def orphan(self, ticket: int) -> int:
        """A lease was lost: its microbatches go back, where nobody else has them; how many blocks these are."""
        if ticket in self.backups:
            del self.backups[ticket]
            return 0
        if (backup := self.backup_of(ticket)) is not None:
            self._replace(backup)
            return 0
        lease = self.leases.pop(ticket)
        self.undelivered -= not lease.delivered
        self.left += lease.microbatches
        runs = sorted([*self.pool, *lease.blocks], key=lambda block: block.start)
        self.pool = []
        for run in runs:
            if self.merges and self.pool and self.pool[-1].stop == run.start:
                self.pool[-1] = Block(self.pool[-1].start, run.stop)
            else:
                self.pool.append(run)
        self.orphaned = True
        self.settled_at = None
        return len(lease.blocks)

    def _place(self, block: Block) -> int | None:
        """Which run of the pool holds all of a block."""
        place = bisect.bisect_right(self.pool, block.start, key=lambda run: run.start) - 1
        return place if place >= 0 and block in self.pool[place] else None

    def _remove(self, block: Block) -> None:
        """Take out a block that is in one run of the pool."""
        if (place := self._place(block)) is None:
            raise RuntimeError(f"{block} is not in the pool of step {self.step}")
        run = self.pool[place]
        rests = (Block(run.start, block.start), Block(block.stop, run.stop))
        self.pool[place : place + 1] = [rest for rest in rests if len(rest) > 0]
        self.left -= len(block)

    def _replace(self, backup: Lease) -> Lease | None:
        """The backup takes the place of what it backs, which is returned; neither is delivered."""
        first = None if backup.backs is None else self.leases.pop(backup.backs)
        self.leases[backup.ticket] = self.backups.pop(backup.ticket)
        backup.backs = None
        return first


def fair_share(left: int, speed: float, other_speeds: float) -> int:
    """How many of `left` microbatches a worker takes so that it and the others, sharing the rest, end soonest.

    speed, other_speeds  microbatches a second, of this worker and of those who still take their share together
    """
    exact = left * speed / (speed + other_speeds)
    fewer = int(exact)
    more = min(left, fewer + 1)

    def seconds(share: int) -> float:
        if share == left:
            return share / speed
        return max(share / speed, (left - share) / other_speeds) if other_speeds else float("inf")

    return more if seconds(more) <= seconds(fewer) else fewer
