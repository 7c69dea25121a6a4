"""Who is in a run: the workers and evaluators that said hello, and the servers that hold the shards."""

from dataclasses import dataclass, field

from ps_vae.ps.blocks import Block
from ps_vae.ps.outbox import Sender
from ps_vae.ps.partition import Slice

__all__ = ["ROLES", "Client", "FollowerMember", "ShardMember"]

ROLES = ("worker", "evaluator")

# A new pace counts this much against what was known.
_NEWEST = 0.2
# A worker that had no share forgets its slowness a little each step.
_FORGIVEN = 0.98


@dataclass(slots=True)
class Client:
    """A worker or an evaluator.

    sender    where to answer; changes when its connection does
    warming   it has not said yet that it is ready
    ticket    of the newest work it was given
    lease     that ticket while the work is neither delivered nor lost
    idle      it said that it waits for work
    outpaced  what it computes was given to another too: nobody waits for it until it is back
    pace      seconds a microbatch, measured; None before its first
    seconds   computing, encoding and waiting, in all
    tickets   pieces of work that were measured
    blocks    of the newest work: it gets the same of the next step where it can, so that what it keeps from one to the
              next (a residual, an inner optimizer's state) goes on with the same part
    reported  the newest version that this evaluator measured
    refused   pieces of its work that could not be used
    """

    session: bytes
    sender: Sender
    name: str
    role: str
    heard: float
    warming: bool = True
    ticket: int = 0
    microbatches: int = 0
    blocks: tuple[Block, ...] = ()
    lease: int | None = None
    idle: bool = False
    outpaced: bool = False
    pace: float | None = None
    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tickets: int = 0
    reported: int = -1
    refused: int = 0

    @property
    def is_active(self) -> bool:
        """Whether it will come for its share of the next step."""
        return self.idle or (self.lease is not None and not self.outpaced)

    def measured(self, seconds: float) -> None:
        """Its newest work took `seconds` in all."""
        pace = max(seconds, 1e-9) / max(1, self.microbatches)
        # The first piece often waits for a page, a file or a cache.
        self.pace = pace if self.tickets < 2 or self.pace is None else (1 - _NEWEST) * self.pace + _NEWEST * pace
        self.tickets += 1

    def spent(self, computing: int, encoding: int, waiting: int) -> None:
        """Where the time went, in nanoseconds; `computing` includes `encoding`."""
        spans = (max(0, computing - encoding) / 1e9, encoding / 1e9, waiting / 1e9)
        before = self.seconds
        self.seconds = (before[0] + spans[0], before[1] + spans[1], before[2] + spans[2])

    def had_no_share(self) -> None:
        """Let a worker that is thought slow come back."""
        if self.pace is not None:
            self.pace *= _FORGIVEN


@dataclass(slots=True)
class FollowerMember:
    """A server that follows a leader.

    following  the name of this time, once it has a copy
    since      the version of that copy
    """

    session: bytes
    address: str
    heard: float
    sender: Sender | None = None
    following: bytes | None = None
    since: int = 0
    version: int = 0


@dataclass(slots=True)
class ShardMember:
    """A server that holds one slice, and what it has applied.

    session         its own, once it has joined; None for the coordinator's shard, and where nobody leads
    heard           when it was heard of last; None before it is up
    before, beyond  it has applied the steps below `before` and those in `beyond`
    pushed, pulled  bytes to and from it
    shared          how many of both were not sent, but read in shared memory
    dense           how many it had been if none were encoded
    duplicates      pushes of which nothing was new
    incarnation     how many servers have led this shard before
    follower        the server that follows it
    relied_on       the following that has all that is published, as the leader says
    over            followings that the leader was told to be over: nobody relies on them any more
    refused         messages that its server refused, by code
    carried         of the leaders before: pushed, pulled, shared, dense, duplicates
    """

    number: int
    slice: Slice
    address: str = ""
    session: bytes | None = None
    heard: float | None = None
    before: int = 0
    beyond: frozenset[int] = field(default_factory=frozenset)
    pushed: int = 0
    pulled: int = 0
    shared: int = 0
    dense: int = 0
    duplicates: int = 0
    incarnation: int = 0
    follower: FollowerMember | None = None
    relied_on: bytes | None = None
    over: set[bytes] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    carried: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)

    @property
    def version(self) -> int:
        """How many steps it has applied."""
        return self.before + len(self.beyond)

    @property
    def told(self) -> str:
        """Its address, as others are told it: empty where that is the coordinator's server."""
        return self.address if self.session is not None else ""

    @property
    def is_up(self) -> bool:
        return self.heard is not None

    def has(self, step: int) -> bool:
        """Whether it has applied `step`."""
        return step < self.before or step in self.beyond
