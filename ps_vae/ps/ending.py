"""How a run ends: open steps are finished, the last snapshot is taken and written, evaluators report on it.

ended as    when
done        the last version is written, and every evaluator has reported on it or had its time
stopped     somebody wanted it: the version after the open steps is written. Work in flight that does not come
            within seconds is given up, where the shards agree on a version without it
failed      a last snapshot cannot be had: shards that are apart and nobody who brings them together, or a shard
            that does not send its part
"""

from ps_vae.errors import PeerError
from ps_vae.ps.backlog import LEASE_SECONDS, Backlog
from ps_vae.ps.fleet import Fleet
from ps_vae.ps.messages import Snapshot, TakeSnapshot
from ps_vae.ps.outbox import Output, RunEnded, Send, ShardAddress, SnapshotTaken
from ps_vae.ps.roster import EVALUATION_SECONDS, Roster

__all__ = ["STOPPING_LEASE_SECONDS", "Ending"]

# How long work that was out when the run was told to stop may take before somebody else does it too.
STOPPING_LEASE_SECONDS = 1.5
# How long a stopping run waits for work in flight where it could do without, and where it could not.
_WILLING_SECONDS = 3.0
_PATIENT_SECONDS = 15.0
# The same where there is no worker left.
_DESERTED_SECONDS = 1.0
_SNAPSHOT_SECONDS = 60.0
# Snapshots that are not whole yet, of how many versions; a version that never becomes whole does not stay.
_UNFINISHED = 4


class Ending:
    """The snapshots of a run up to its last one.

    Invariants: `taken` and `written` never decrease; each version is taken once.

    stopping  since when the run is told to stop
    taken     the newest version of which every shard's part came
    written   the newest version that the program wrote
    """

    def __init__(self, backlog: Backlog, fleet: Fleet, roster: Roster) -> None:
        self.stopping: float | None = None
        self.taken = -1
        self.written = -1
        self._backlog = backlog
        self._fleet = fleet
        self._roster = roster
        self._parts: dict[int, dict[int, Snapshot]] = {}
        self._reached_at: float | None = None
        self._asked_at = float("-inf")
        self._closing_since: float | None = None
        # What a stopping run is to reach, if nobody is late.
        self._goal = backlog.limit

    @property
    def is_closing(self) -> bool:
        """Whether the last version is reached, or settled: nothing is left to compute."""
        return self._reached_at is not None

    def stop(self, now: float) -> list[Output]:
        """Open no step any more, and let shards send a snapshot when they have the open ones."""
        self.stopping = now
        self._goal = target = self._backlog.stop_opening()
        self._backlog.hurry(STOPPING_LEASE_SECONDS, now)
        return self._ask(target, now) if target > self.taken else []

    def add(self, snapshot: Snapshot) -> list[Output]:
        """One shard's part of a version; the last one makes it whole."""
        shard = self._fleet.find(snapshot.run, snapshot.shard)
        sizes = [array.size for array in snapshot.payload]
        names = self._fleet.names
        if snapshot.names != names or len(sizes) != len(names) + 1 or set(sizes) != {shard.slice.size}:
            text = f"a snapshot of {sizes} numbers, {snapshot.names}; the slice has {shard.slice.size}, and {names}"
            raise PeerError("bad-size", text)
        if snapshot.version <= self.taken:
            return []
        parts = self._parts.setdefault(snapshot.version, {})
        parts[snapshot.shard] = snapshot
        if len(parts) < len(self._fleet.shards):
            for version in sorted(self._parts)[:-_UNFINISHED]:
                del self._parts[version]
            return []
        self.taken = snapshot.version
        self._parts = {version: part for version, part in self._parts.items() if version > self.taken}
        return [SnapshotTaken(self.taken, tuple(parts[number] for number in range(len(parts))))]

    def excuse(self, seconds: float, now: float) -> None:
        """Nobody could be heard for so long: it is not waited for any less."""
        spans = (self.stopping, self._reached_at, self._closing_since)
        later = (None if since is None else min(now, since + seconds) for since in spans)
        self.stopping, self._reached_at, self._closing_since = later

    def watch(self, now: float) -> list[Output | RunEnded]:
        """What is to be sent now; a RunEnded where it is over."""
        target = self._backlog.limit
        if self.written >= target:
            return self._close(target, now)
        if self._fleet.lowest >= target:
            return self._fetch_last(now)
        if self.stopping is not None:
            return self._hurry(now - self.stopping, now)
        return []

    def _close(self, target: int, now: float) -> list[Output | RunEnded]:
        if self._closing_since is None:
            self._closing_since = self._reached_at = now
        if self.stopping is not None:
            return [RunEnded(False, "stopped")]
        have_reported = all(evaluator.reported >= target for evaluator in self._roster.evaluators)
        is_over = have_reported or now - self._closing_since > EVALUATION_SECONDS
        return [RunEnded(False, "done")] if is_over else []

    def _fetch_last(self, now: float) -> list[Output | RunEnded]:
        """Shards send it by themselves where it is a milestone; a part that does not come is asked for again."""
        highest = max(shard.before for shard in self._fleet.shards)
        if highest > self._backlog.limit:
            # A coordinator that was started again does not know of a step that one shard has: the others need it too.
            self._backlog.limit = self._goal = highest
            self._reached_at = None
            return []
        if self._reached_at is None:
            self._reached_at = self._asked_at = now
        if self.taken >= self._backlog.limit or now - self._asked_at < LEASE_SECONDS:
            return []
        if now - self._reached_at > (_SNAPSHOT_SECONDS if self.stopping is None else _PATIENT_SECONDS):
            return [RunEnded(True, "not every shard sent its part of the last checkpoint; resume from the newest one")]
        if self.stopping is not None and self._backlog.limit < self._goal:
            # Work that was given up came after all, perhaps to some shards only: the others need it too.
            agreed = self._fleet.agreed
            self._backlog.limit = self._goal if agreed is None else agreed
            if agreed is None:
                self._reached_at = None
                return []
        return [*self._ask(self._backlog.limit, now)]

    def _hurry(self, waited: float, now: float) -> list[Output | RunEnded]:
        is_deserted = not self._roster.workers
        agreed = self._fleet.agreed
        if agreed is not None and waited > (_DESERTED_SECONDS if is_deserted else _WILLING_SECONDS):
            self._backlog.limit = agreed
            self._reached_at = now
            if self.taken < agreed:
                return [*self._ask(agreed, now)]
        elif waited > (_WILLING_SECONDS if is_deserted else _PATIENT_SECONDS):
            reason = "stopped without a last checkpoint: work in flight reached some shards and not others"
            return [RunEnded(True, f"{reason}; resume from the newest one")]
        return []

    def _ask(self, version: int, now: float) -> list[Output]:
        self._asked_at = now
        return [Send(ShardAddress(shard.number), TakeSnapshot(version)) for shard in self._fleet.shards]
