"""The servers of a run: which shard is where, who follows it, and how far it is.

When a leader is gone the follower that it relied on takes its place: under the shard's next incarnation, so that nobody
believes the old leader should it come back. A follower has no versions older than the copy that it began with; so it
can take over once no step is computed on an older one any more. Where leader and follower are both silent nobody can
tell which of them is gone: whoever speaks first leads.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.gathering import Found
from ps_vae.ps.identity import FIRST
from ps_vae.ps.members import FollowerMember, ShardMember
from ps_vae.ps.messages import Admit, Applied, Join, Lead, Moved, Present, Standby, Who
from ps_vae.ps.outbox import Member, Output, Send, Sender, ShardAddress
from ps_vae.ps.partition import Slice
from ps_vae.ps.rules import RunRules
from ps_vae.ps.state import ShardState

__all__ = ["Fleet"]

Array = npt.NDArray[np.float32]

# As long as a shard waits for the coordinator, unless it is told otherwise: hosts may be cut off for a while.
_SILENCE_SECONDS = 60.0
# Where somebody can take its place; and a follower's.
_FOLLOWED_SILENCE_SECONDS = 5.0
# Who says something every second, and was heard of in that time, is there.
_PRESENCE_SECONDS = 2.0
_ADOPTION_SECONDS = 10.0


class Fleet:
    """The shards, by number; the first is in the coordinator's own process.

    Invariants: a shard is one server's from its `admit` on, until that is gone and its follower leads;
                `version` never decreases.

    initial  the whole vector and optimizer state, from which joining shards get their slices
    found    of a run that goes on: then the first shard is in another process too
    names    of the optimizer's arrays
    moves    how many times a shard has got another leader
    """

    def __init__(
        self,
        rules: RunRules,
        slices: list[Slice],
        address: str,
        config: bytes,
        initial: ShardState,
        found: Found | None = None,
    ) -> None:
        if found is None:
            self.shards = [ShardMember(number, piece, before=initial.version) for number, piece in enumerate(slices)]
            self.shards[0].address = address
        else:
            self.shards = list(found.members)
        self._own = None if found is not None else 0
        self._address = address
        self.names = tuple(initial.optimizer)
        self.moves = 0
        self._rules = rules
        self._config = config
        self._initial: ShardState | None = initial if found is None else None
        # Followers of a run that goes on may come after their leaders.
        self._adopts_until = float("-inf")
        self._refused_before: Counter[str] = Counter()

    @property
    def is_complete(self) -> bool:
        """Whether every shard is there."""
        return all(shard.is_up for shard in self.shards)

    @property
    def missing(self) -> list[str]:
        return [_name(shard, self.shards) for shard in self.shards if not shard.is_up]

    @property
    def lowest(self) -> int:
        """The version that every shard has reached without a gap."""
        return min(shard.before for shard in self.shards)

    @property
    def agreed(self) -> int | None:
        """The version that all shards are at, if they are."""
        versions = {shard.before for shard in self.shards}
        return self.lowest if len(versions) == 1 and not any(shard.beyond for shard in self.shards) else None

    @property
    def others(self) -> list[Sender]:
        """The addresses of the shards in other processes."""
        return [ShardAddress(shard.number) for shard in self.shards if shard.session]

    @property
    def refused(self) -> dict[str, int]:
        """How many messages all servers refused, by code; those that are gone, too."""
        total = self._refused_before.copy()
        for shard in self.shards:
            total.update(shard.refused)
        return dict(sorted(total.items()))

    def begin(self, now: float) -> list[Output]:
        """Go on with the shards that were found: who can lead where nobody does is told to."""
        self._adopts_until = now + _ADOPTION_SECONDS
        for shard in self.shards:
            shard.heard = None if shard.heard is None else now
            if shard.follower is not None:
                shard.follower.heard = now
        return [output for shard in self.shards if not shard.is_up for output in self._promote(shard, now)]

    def present(self, sender: Sender, present: Present, now: float) -> list[Output]:
        """A server that was there before the coordinator was: a follower that its leader may rely on."""
        shard = self.find(present.run, present.shard)
        if present.session == shard.session:
            return []
        if present.leads:
            raise PeerError("deposed", f"another server leads shard {shard.number + 1}; join again")
        known = shard.follower
        if known is None and now < self._adopts_until:
            shard.follower = FollowerMember(present.session, present.address, now, sender)
        elif known is None or known.session != present.session:
            raise PeerError("bad-shard", f"this server does not follow shard {shard.number} (any more); join again")
        return []

    def join(self, join: Join, now: float) -> Admit | None:
        """Admit the server to the shard that it has, or else to the first that nobody has, or that nobody follows.

        None: each shard has its follower; this one may be needed later.
        """
        if join.follows:
            return self._admit_follower(join, now)
        free = [shard for shard in self.shards[1:] if shard.session in (None, join.session)]
        ours = [shard for shard in free if shard.session == join.session] or free
        if not ours or self._initial is None:
            raise PeerError("full", f"the run has its {len(self.shards)} shards")
        shard = ours[0]
        shard.session, shard.address = join.session, join.address
        state, piece = self._initial, slice(shard.slice.start, shard.slice.stop)
        payload = (state.weights[piece], *(array[piece] for array in state.optimizer.values()))
        return self._admit(shard, "", state.version, tuple(state.optimizer), payload)

    def standby(self, sender: Sender, standby: Standby, now: float) -> list[Output]:
        """A follower is there; one that has been told to lead and does not know it yet is told again."""
        shard = self.find(standby.run, standby.shard)
        if shard.session == standby.session:
            return [Send(sender, Lead(self._rules.run, shard.number, shard.incarnation, None))]
        follower = shard.follower
        if follower is None and now < self._adopts_until:
            return [Send(sender, Who(self._rules.run))]
        if follower is None or follower.session != standby.session:
            raise PeerError("bad-shard", f"this server does not follow shard {shard.number} (any more); join again")
        outputs: list[Output] = []
        if follower.following is None and standby.following is not None:
            outputs.append(Member(f"follower of shard {_name(shard, self.shards)}", "joined", follower.address))
        follower.sender, follower.heard, follower.version = sender, now, standby.version
        follower.following, follower.since = standby.following, standby.since
        return outputs

    def applied(self, applied: Applied, now: float) -> list[Output]:
        """Note how far a shard is; a message that was overtaken by a later one says nothing new."""
        shard = self.find(applied.run, applied.shard)
        if applied.before > self._rules.steps:
            raise PeerError("bad-step", f"shard {applied.shard + 1} says {applied.before} of {self._rules.steps} steps")
        if applied.incarnation < shard.incarnation:
            text = f"another server leads shard {applied.shard + 1}, as incarnation {shard.incarnation}"
            raise PeerError("deposed", f"{text}; this one was incarnation {applied.incarnation}")
        if applied.session != (shard.session or FIRST.session):
            raise PeerError("deposed", f"another server leads shard {applied.shard + 1}; join again")
        outputs: list[Output] = []
        if not shard.is_up:
            outputs.append(Member(f"shard {_name(shard, self.shards)}", "joined", shard.address))
        shard.heard = now
        if applied.before + len(applied.beyond) >= shard.version:
            shard.before, shard.beyond = applied.before, frozenset(applied.beyond)
            counted = (applied.pushed, applied.pulled, applied.shared, applied.dense, applied.duplicates)
            totals = [before + count for before, count in zip(shard.carried, counted, strict=True)]
            shard.pushed, shard.pulled, shard.shared, shard.dense, shard.duplicates = totals
            shard.refused = dict(applied.refused)
        if applied.follower is not None and applied.follower not in shard.over:
            # Where it relies on nobody any more it says who is leaving: one that names nobody may have been overtaken.
            shard.relied_on = applied.follower
        if applied.leaving is not None:
            outputs.append(self._let_go(shard, applied.leaving))
        if self.is_complete:
            self._initial = None
        return outputs

    def find(self, run: bytes, number: int) -> ShardMember:
        """The shard that speaks; PeerError where it is none of this run's."""
        if run != self._rules.run:
            raise PeerError("wrong-run", f"this server works on run {self._rules.run.hex()}, not {run.hex()}")
        if number >= len(self.shards) or (number != self._own and self.shards[number].session is None):
            raise PeerError("bad-shard", f"shard {number} of {len(self.shards)} has not been admitted")
        return self.shards[number]

    def have(self, step: int) -> bool:
        """Whether every shard has applied `step`."""
        return all(shard.has(step) for shard in self.shards)

    def excuse(self, seconds: float, now: float) -> None:
        """Nobody could be heard for so long."""
        for shard in self.shards:
            shard.heard = None if shard.heard is None else min(now, shard.heard + seconds)
            if shard.follower is not None:
                shard.follower.heard = min(now, shard.follower.heard + seconds)

    def silent(self, now: float) -> str | None:
        """Which shard has not been heard of for too long, as a sentence."""
        for shard in self.shards:
            if shard.number != self._own and shard.heard is not None and now - shard.heard > _SILENCE_SECONDS:
                name = f"shard {_name(shard, self.shards)} at {shard.address}"
                return f"{name} is silent for {_SILENCE_SECONDS:.0f} s; resume from the newest checkpoint"
        return None

    def can_be_replaced(self, shard: ShardMember) -> bool:
        """Whether its follower has all that is published, and every version that work may have to be done on."""
        follower = shard.follower
        if follower is None or follower.following is None or follower.sender is None:
            return False
        is_relied_on = follower.following == shard.relied_on and follower.following not in shard.over
        return is_relied_on and follower.since <= self._rules.consistency.usable(self.lowest).low

    def followed_and_silent(self, now: float) -> list[bytes]:
        """The sessions of servers that have not been heard of, while the other one of their shard is there."""
        late: list[bytes] = []
        for shard in self.shards:
            if shard.heard is None or shard.follower is None:
                continue
            if now - shard.heard > _FOLLOWED_SILENCE_SECONDS:
                late += [shard.session] if shard.session is not None and self._has_heir(shard, now) else []
            elif now - shard.follower.heard > _FOLLOWED_SILENCE_SECONDS and now - shard.heard < _PRESENCE_SECONDS:
                late.append(shard.follower.session)
        return late

    def lost(self, session: bytes, now: float) -> list[Output]:
        """The server is gone: its follower leads, if that is there; or nobody follows the shard any more."""
        for shard in self.shards:
            if shard.follower is not None and shard.follower.session == session:
                return self._lost_follower(shard)
            if shard.session == session and not shard.is_up:
                # It has never said that it has the shard: another one may have it.
                shard.session, shard.address = None, ""
            elif shard.session == session and self._has_heir(shard, now):
                return self._promote(shard, now)
        return []

    @property
    def lacks_follower(self) -> bool:
        """Whether a server that wants to follow would find something to do."""
        return self.is_complete and any(shard.follower is None for shard in self.shards)

    @property
    def can_be_taken_up(self) -> bool:
        """Whether the shards are in other processes, or followed there."""
        own = [shard for shard in self.shards if shard.number == self._own]
        return self.is_complete and all(self.can_be_replaced(shard) for shard in own)

    @property
    def followers(self) -> list[Sender]:
        """Where followers are."""
        followers = [shard.follower for shard in self.shards if shard.follower is not None]
        return [follower.sender for follower in followers if follower.sender is not None]

    @property
    def servers(self) -> dict[bytes, str]:
        """The address of each server in another process, by its session."""
        leaders = {shard.session: shard.address for shard in self.shards if shard.session is not None}
        followers = [shard.follower for shard in self.shards if shard.follower is not None]
        return {**leaders, **{follower.session: follower.address for follower in followers}}

    @property
    def moved(self) -> Moved:
        """Where the shards are."""
        return Moved(self.moves, tuple(shard.told for shard in self.shards))

    def _admit_follower(self, join: Join, now: float) -> Admit | None:
        if not self.is_complete:
            raise PeerError("starting", f"the run waits for shard {', '.join(self.missing)}; followers come after that")
        if not self._rules.consistency.is_synchronous:
            raise PeerError("bad-role", f"under {self._rules.consistency} nobody can follow a shard, under bsp only")
        known = [shard for shard in self.shards if shard.follower is not None]
        ours = [shard for shard in known if shard.follower is not None and shard.follower.session == join.session]
        ours = ours or [shard for shard in self.shards if shard.follower is None]
        if not ours:
            return None
        shard = ours[0]
        shard.follower = FollowerMember(join.session, join.address, now)
        return self._admit(shard, shard.told, shard.before, (), ())

    def _admit(
        self, shard: ShardMember, leader: str, version: int, names: tuple[str, ...], payload: tuple[Array, ...]
    ) -> Admit:
        return Admit(
            run=self._rules.run,
            config=self._config,
            shard=shard.number,
            start=shard.slice.start,
            stop=shard.slice.stop,
            microbatches=self._rules.microbatches,
            steps=self._rules.steps,
            bound=self._rules.consistency.bound,
            delay=self._rules.consistency.delay,
            milestone=self._rules.milestone,
            first=self._rules.consistency.first,
            leader=leader,
            incarnation=shard.incarnation,
            version=version,
            names=names,
            payload=payload,
            secret=self._rules.secret,
        )

    def _has_heir(self, shard: ShardMember, now: float) -> bool:
        """Whether its follower can lead, and is there to hear of it."""
        is_there = shard.follower is not None and now - shard.follower.heard < _PRESENCE_SECONDS
        return is_there and self.can_be_replaced(shard)

    def _promote(self, shard: ShardMember, now: float) -> list[Output]:
        follower = shard.follower
        if follower is None or follower.sender is None:
            raise RuntimeError("there is nobody to lead")
        gone = shard.address or self._address
        shard.carried = (shard.pushed, shard.pulled, shard.shared, shard.dense, shard.duplicates)
        self._refused_before.update(shard.refused)
        shard.refused = {}
        shard.incarnation += 1
        shard.session, shard.address, shard.heard = follower.session, follower.address, now
        shard.follower = shard.relied_on = None
        self.moves += 1
        why = f"the server at {gone} is gone; its follower at {shard.address} leads"
        lead = Lead(self._rules.run, shard.number, shard.incarnation, None)
        return [Member(f"shard {_name(shard, self.shards)}", "moved", why), Send(follower.sender, lead)]

    def _lost_follower(self, shard: ShardMember) -> list[Output]:
        follower, shard.follower = shard.follower, None
        if follower is None:
            raise RuntimeError("nobody follows the shard")
        outputs: list[Output] = []
        if follower.following is not None:
            outputs.append(Member(f"follower of shard {_name(shard, self.shards)}", "lost", follower.address))
            outputs.append(self._let_go(shard, follower.following))
        return outputs

    def _let_go(self, shard: ShardMember, following: bytes) -> Send:
        shard.over.add(following)
        shard.relied_on = None if shard.relied_on == following else shard.relied_on
        return Send(ShardAddress(shard.number), Lead(self._rules.run, shard.number, shard.incarnation, following))


def _name(shard: ShardMember, shards: list[ShardMember]) -> str:
    return f"{shard.number + 1} of {len(shards)}"
