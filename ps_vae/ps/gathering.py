"""A coordinator that was started again finds the servers of its run, and where the run is. No sockets, no clock.

What a coordinator knows, others know too: leaders say what they have applied and on whom they rely, followers what they
hold, every second; clients come by themselves. So it listens, and asks whom it does not know who that is.

    server                 coordinator
      applied, standby ------->              every second, and as soon as the connection stands again
      <-------------------- who
      present, applied or standby -->
                                             every shard has a leader, or a follower that can lead: the run goes on

A shard may have nobody who leads: the first one's leader died with the coordinator. Then its follower does, if its copy
fits. The shards of a synchronous run are at most 1 + delay versions apart, and with servers that are within that the
steps from the lowest on are done again, with the same bits. A leader that may still be on its way is waited for.

message                       effect
present                       the server is known
applied, standby of one that  noted
is known
the same of another           it is asked who it is
hello                         `starting`; let in as soon as the run goes on
ready, report, trouble        refused, `unknown-session`: the client says hello
join                          `starting`
"""

from math import isnan

from ps_vae.errors import PeerError
from ps_vae.ps.members import FollowerMember, ShardMember
from ps_vae.ps.messages import (
    Applied,
    Bye,
    Error,
    Hello,
    Join,
    Message,
    Present,
    Ready,
    Report,
    Snapshot,
    Standby,
    Status,
    Trouble,
    Who,
)
from ps_vae.ps.outbox import Output, RunEnded, Send, Sender
from ps_vae.ps.partition import Slice
from ps_vae.ps.record import record
from ps_vae.ps.refusals import Refusals
from ps_vae.ps.rules import RunRules

__all__ = ["Found", "Gathering"]

# Whoever is there speaks within a second of being reached.
_NOBODY_SECONDS = 3.0
# A leader that has not come by then is gone: its follower has missed it for as long.
_ABSENT_SECONDS = 5.0
_PATIENCE_SECONDS = 15.0
# `tick` is called far more often, unless the process does not run.
_STANDSTILL_SECONDS = 1.0

_STARTING = "the first server was started again and looks for the other servers of its run"


@record
class Found:
    """A run that goes on.

    members  its shards in order; one that nobody leads has a follower that can
    early    clients that have said hello meanwhile, by session
    """

    members: tuple[ShardMember, ...]
    early: dict[bytes, tuple[Sender, Hello]]

    @property
    def lowest(self) -> int:
        """The version that every shard has."""
        return min(member.before for member in self.members)


class _Server:
    """A server that has said who it is, and what it said since."""

    def __init__(self, present: Present, sender: Sender) -> None:
        self.present, self.sender = present, sender
        self.applied: Applied | None = None
        self.standby: Standby | None = None


class Gathering:
    """What a coordinator does before it is one again. It has the methods of a coordinator.

    Invariant: `found` is set once, with all shards.

    rules   of the run that is to go on
    slices  of its shards
    least   the version that can be had without them: who is behind it is of no use
    """

    def __init__(self, rules: RunRules, slices: list[Slice], least: int = 0) -> None:
        self.found: Found | None = None
        self.refusals = Refusals()
        self._rules = rules
        self._slices = slices
        self._least = least
        self._servers: dict[bytes, _Server] = {}
        self._early: dict[bytes, tuple[Sender, Hello]] = {}
        self._is_alone = True
        self._began = self._looked_at = float("nan")

    @property
    def servers(self) -> dict[bytes, str]:
        """Nobody is watched: who is gone is not heard of."""
        return {}

    def handle(self, sender: Sender, message: Message, now: float) -> list[Output]:
        """Take one message. PeerError where it is refused."""
        match message:
            case Present():
                self._check(message.run, message.shard)
                self._servers[message.session] = _Server(message, sender)
                return []
            case Applied() | Standby():
                return self._note(sender, message)
            case Hello():
                self._early[message.session] = (sender, message)
                return [Send(sender, Error("starting", _STARTING))]
            case Join() | Status():
                return [Send(sender, Error("starting", _STARTING))]
            case Bye():
                self._early.pop(message.session, None)
                return []
            case Ready() | Report() | Trouble():
                raise PeerError("unknown-session", "this session is not known (any more); say hello")
            case Snapshot():
                return []
        raise PeerError("unknown-message", f"who looks for the servers of a run takes no message {message.KIND!r}")

    def tick(self, now: float) -> list[Output]:
        """Call at least every tenth of a second. The end: of the search, not of the run."""
        self._excuse_standstill(now)
        if self.found is not None:
            return []
        waited = now - self._began
        members = [self._member(number, piece, waited) for number, piece in enumerate(self._slices)]
        there = [member for member in members if member is not None]
        if len(there) == len(members) and self._fit(there):
            self.found = Found(tuple(there), self._early)
            return [RunEnded(False, "found")]
        if waited > (_NOBODY_SECONDS if self._is_alone else _PATIENCE_SECONDS):
            return [RunEnded(True, self._why_not(members))]
        return []

    def forget(self, sender: Sender, now: float) -> list[Output]:
        """The connection that `sender` names is gone."""
        self._early = {session: early for session, early in self._early.items() if early[0] != sender}
        self._servers = {session: server for session, server in self._servers.items() if server.sender != sender}
        return []

    def lost_server(self, session: bytes, now: float) -> list[Output]:
        """Nobody is watched."""
        return []

    def _excuse_standstill(self, now: float) -> None:
        """Where this process stood still, or its host did, nobody could be heard."""
        seconds = now - self._looked_at
        self._looked_at = now
        if isnan(seconds):
            self._began = now
        elif seconds > _STANDSTILL_SECONDS:
            self._began += seconds

    def _check(self, run: bytes, number: int) -> None:
        if run != self._rules.run:
            raise PeerError("wrong-run", f"this server works on run {self._rules.run.hex()}, not {run.hex()}")
        if number >= len(self._slices):
            raise PeerError("bad-shard", f"shard {number} of {len(self._slices)} is none of this run's")

    def _note(self, sender: Sender, message: Applied | Standby) -> list[Output]:
        self._check(message.run, message.shard)
        self._is_alone = False
        server = self._servers.get(message.session)
        is_theirs = server is not None and server.present.shard == message.shard
        if server is None or not is_theirs or server.present.leads != isinstance(message, Applied):
            return [Send(sender, Who(self._rules.run))]
        server.sender = sender
        if isinstance(message, Applied):
            server.applied = message
        else:
            server.standby = message
        return []

    def _member(self, number: int, piece: Slice, waited: float) -> ShardMember | None:
        """A shard with its leader, if that is there, and the best follower; None where nobody can lead it yet."""
        servers = [server for server in self._servers.values() if server.present.shard == number]
        leads = [(server.applied.incarnation, server.applied.before, server) for server in servers if server.applied]
        leads = [lead for lead in leads if lead[1] >= self._least]
        holds = [(server.standby.version, server) for server in servers if server.standby and server.standby.following]
        holds = [held for held in holds if held[0] >= self._least]
        follower = max(holds, key=lambda held: held[0])[1] if holds else None
        if leads:
            return _led(number, piece, max(leads, key=lambda lead: lead[:2])[2], follower)
        # Its leader was in the coordinator's process, or has had its time.
        if follower is not None and (not follower.present.leader or waited > _ABSENT_SECONDS):
            return _orphaned(number, piece, follower)
        return None

    @property
    def _apart(self) -> int:
        """How many versions the shards of a synchronous run may be apart."""
        return 1 + self._rules.consistency.delay

    def _fit(self, members: list[ShardMember]) -> bool:
        """Whether the shards can go on together: each has every version that the steps of the lowest are done on."""
        lowest = min(member.before for member in members)
        consistency = self._rules.consistency
        if max(member.before for member in members) - lowest > self._apart:
            return False
        heirs = [member.follower for member in members if not member.is_up]
        return all(heir is not None and heir.since <= consistency.usable(lowest).low for heir in heirs)

    def _why_not(self, members: list[ShardMember | None]) -> str:
        missing = [str(number + 1) for number, member in enumerate(members) if member is None]
        if self._is_alone:
            return "none of the other servers is there"
        if missing:
            behind = f" at version {self._least} or later" if self._least else ""
            return f"nobody has shard {', '.join(missing)} of {len(members)}{behind}"
        versions = [member.before for member in members if member is not None]
        if max(versions) - min(versions) <= self._apart:
            return f"a follower that has to lead has no version as old as the run at version {min(versions)} needs"
        return f"the shards are at versions {versions}, too far apart to go on together"


def _led(number: int, piece: Slice, leader: _Server, follower: _Server | None) -> ShardMember:
    if leader.applied is None:
        raise RuntimeError("a leader that has said nothing")
    member = ShardMember(number, piece, address=leader.present.address, session=leader.present.session)
    member.incarnation, member.follower = leader.applied.incarnation, _following(follower)
    member.before, member.beyond = leader.applied.before, frozenset(leader.applied.beyond)
    member.heard, member.relied_on = 0.0, leader.applied.follower
    return member


def _orphaned(number: int, piece: Slice, follower: _Server) -> ShardMember:
    member = ShardMember(number, piece, address=follower.present.leader)
    member.incarnation, member.follower = follower.present.incarnation, _following(follower)
    member.before = 0 if follower.standby is None else follower.standby.version
    return member


def _following(server: _Server | None) -> FollowerMember | None:
    if server is None or server.standby is None:
        return None
    present, standby = server.present, server.standby
    return FollowerMember(
        present.session,
        present.address,
        0.0,
        sender=server.sender,
        following=standby.following,
        since=standby.since,
        version=standby.version,
    )
