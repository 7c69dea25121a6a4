"""The servers of a run: which shard is where, and how far it is."""

from collections import Counter

from ps_vae.errors import PeerError
from ps_vae.ps.members import ShardMember
from ps_vae.ps.messages import Admit, Applied, Join
from ps_vae.ps.outbox import Member, Output, Sender, ShardAddress
from ps_vae.ps.partition import Slice
from ps_vae.ps.rules import RunRules
from ps_vae.ps.state import ShardState

__all__ = ["Fleet"]

_SILENCE_SECONDS = 30.0


class Fleet:
    """The shards, by number; the first is in the coordinator's own process.

    Invariants: a shard is one server's from its `admit` on;
                `version` never decreases.

    initial  the whole vector and optimizer state, from which joining shards get their slices
    names    of the optimizer's arrays
    """

    def __init__(self, rules: RunRules, slices: list[Slice], address: str, config: bytes, initial: ShardState) -> None:
        self.shards = [ShardMember(number, piece, before=initial.version) for number, piece in enumerate(slices)]
        self.shards[0].address = address
        self.names = tuple(initial.optimizer)
        self._rules = rules
        self._config = config
        self._initial: ShardState | None = initial

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
        return [ShardAddress(shard.number) for shard in self.shards[1:] if shard.session]

    @property
    def refused(self) -> dict[str, int]:
        """How many messages all servers refused, by code."""
        total: Counter[str] = Counter()
        for shard in self.shards:
            total.update(shard.refused)
        return dict(total)

    def join(self, join: Join) -> Admit:
        """Admit the server to the shard that it has, or else to the first that nobody has."""
        free = [shard for shard in self.shards[1:] if shard.session in (None, join.session)]
        ours = [shard for shard in free if shard.session == join.session] or free
        if not ours or self._initial is None:
            raise PeerError("full", f"the run has its {len(self.shards)} shards")
        shard = ours[0]
        shard.session, shard.address = join.session, join.address
        state, piece = self._initial, slice(shard.slice.start, shard.slice.stop)
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
            version=state.version,
            names=tuple(state.optimizer),
            payload=(state.weights[piece], *(array[piece] for array in state.optimizer.values())),
        )

    def applied(self, applied: Applied, now: float) -> list[Output]:
        """Note how far a shard is; a message that was overtaken by a later one says nothing new."""
        shard = self.find(applied.run, applied.shard)
        if applied.before > self._rules.steps:
            raise PeerError("bad-step", f"shard {applied.shard + 1} says {applied.before} of {self._rules.steps} steps")
        outputs: list[Output] = []
        if not shard.is_up:
            outputs.append(Member(f"shard {_name(shard, self.shards)}", "joined", shard.address))
        shard.heard = now
        if applied.before + len(applied.beyond) >= shard.version:
            shard.before, shard.beyond = applied.before, frozenset(applied.beyond)
            shard.pushed, shard.pulled = applied.pushed, applied.pulled
            shard.shared, shard.dense = applied.shared, applied.dense
            shard.refused = dict(applied.refused)
        if self.is_complete:
            self._initial = None
        return outputs

    def find(self, run: bytes, number: int) -> ShardMember:
        """The shard that speaks; PeerError where it is none of this run's."""
        if run != self._rules.run:
            raise PeerError("wrong-run", f"this server works on run {self._rules.run.hex()}, not {run.hex()}")
        if number >= len(self.shards) or (number > 0 and self.shards[number].session is None):
            raise PeerError("bad-shard", f"shard {number} of {len(self.shards)} has not been admitted")
        return self.shards[number]

    def have(self, step: int) -> bool:
        """Whether every shard has applied `step`."""
        return all(shard.has(step) for shard in self.shards)

    def silent(self, now: float) -> str | None:
        """Which shard has not been heard of for too long, as a sentence."""
        for shard in self.shards[1:]:
            if shard.heard is not None and now - shard.heard > _SILENCE_SECONDS:
                name = f"shard {_name(shard, self.shards)} at {shard.address}"
                return f"{name} is silent for {_SILENCE_SECONDS:.0f} s; resume from the newest checkpoint"
        return None


def _name(shard: ShardMember, shards: list[ShardMember]) -> str:
    return f"{shard.number + 1} of {len(shards)}"
