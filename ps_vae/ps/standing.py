"""How a run is going, as plain data: what `status` shows."""

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from ps_vae.ps.backlog import Backlog
from ps_vae.ps.fleet import Fleet
from ps_vae.ps.members import Client, ShardMember
from ps_vae.ps.work import Lease

__all__ = ["Speed", "as_json", "of_evaluators", "of_fleet", "of_time", "of_workers"]

_SPEED_SECONDS = 10.0
_SAMPLE_SECONDS = 0.1
# A `state` message carries 60 KiB.
_LIMIT = 60 * 1024


class Speed:
    """Versions a second, over the last ten seconds, or since the first version that was noted.

    Invariant: of three samples in a row the outer two are at least `_SAMPLE_SECONDS` apart, so however fast a run is,
    ten seconds of it are few samples.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, now: float, version: int) -> None:
        """`version` was reached now."""
        samples = self._samples
        if len(samples) > 1 and now - samples[-2][0] < _SAMPLE_SECONDS:
            samples.pop()
        samples.append((now, version))
        self._forget(now - _SPEED_SECONDS)

    def per_second(self, now: float) -> float:
        """0 where nothing moves."""
        since = now - _SPEED_SECONDS
        self._forget(since)
        if len(self._samples) < 2:
            return 0.0
        (first, before), (second, after), newest = self._samples[0], self._samples[1], self._samples[-1][1]
        reached = float(before)
        if first < since:
            # Of the versions between the two, those that came since.
            reached += (after - before) * (since - first) / (second - first)
        return max(0.0, newest - reached) / max(1e-9, now - max(first, since))

    def _forget(self, since: float) -> None:
        """Samples before the last one that is as old."""
        while len(self._samples) > 1 and self._samples[1][0] <= since:
            self._samples.popleft()


def of_workers(workers: Sequence[Client], backlog: Backlog, now: float) -> list[dict[str, Any]]:
    """The workers, and the leases that they have: of which step how much, and how long they may still take.

    A lease whose weights do not exist yet has no end.
    """
    leases: dict[int, Lease] = {}
    for work in backlog.steps.values():
        leases |= work.leases | work.backups
    return [_of_worker(worker, leases.get(worker.lease or 0), now) for worker in workers]


def of_evaluators(evaluators: Sequence[Client]) -> list[dict[str, Any]]:
    """The evaluators, and the version that each measured last."""
    return [{"name": client.name, "version": max(0, client.reported)} for client in evaluators]


def of_time(workers: Sequence[Client]) -> dict[str, float]:
    """Where the workers' time went, as parts of 1: waiting is for weights and for work."""
    spans = [sum(column) for column in zip(*(worker.seconds for worker in workers), strict=True)]
    total = sum(spans)
    if total == 0.0:
        return {}
    names = ("computing", "encoding", "waiting")
    return {name: round(span / total, 4) for name, span in zip(names, spans, strict=True)}


def of_fleet(fleet: Fleet, now: float, per_second: float) -> list[dict[str, Any]]:
    """The shards in order, and how far their followers are.

    per_second  versions that the run makes

    `follower`: none, joining, or ready to lead. `lag`: versions that it lacks of its leader's; none where it is ready,
    for its leader publishes nothing that it lacks; otherwise by what it said last; None without a copy. `lag_seconds`:
    in which the run makes as many; None where it makes none. `follower_silent_seconds`: since it was heard of.
    """
    return [
        {
            "address": shard.address,
            "up": shard.is_up,
            "version": shard.version,
            "incarnation": shard.incarnation,
            **_of_follower(shard, fleet.can_be_replaced(shard), now, per_second),
        }
        for shard in fleet.shards
    ]


def as_json(state: dict[str, Any]) -> bytes:
    """The state as JSON text that fits in a message: of many members, or shards, only the first are listed."""
    text = json.dumps(state).encode()
    kept = {name: len(state[name]) for name in ("workers", "evaluators", "shards") if name in state}
    while len(text) > _LIMIT and any(kept.values()):
        longest = max(kept, key=lambda name: kept[name])
        kept[longest] //= 2
        text = json.dumps({**state, **{name: state[name][:count] for name, count in kept.items()}}).encode()
    return text


def _of_follower(shard: ShardMember, is_ready: bool, now: float, per_second: float) -> dict[str, Any]:
    follower, lag = shard.follower, None
    if is_ready:
        lag = 0
    elif follower is not None and follower.following is not None:
        lag = max(0, shard.version - follower.version)
    return {
        "follower": "none" if follower is None else "ready" if is_ready else "joining",
        "lag": lag,
        "lag_seconds": 0.0 if lag == 0 else round(lag / per_second, 3) if lag and per_second > 0 else None,
        "follower_silent_seconds": None if follower is None else round(now - follower.heard, 3),
    }


def _of_worker(client: Client, lease: Lease | None, now: float) -> dict[str, Any]:
    left = None if lease is None or lease.deadline is None else round(lease.deadline - now, 3)
    return {
        "name": client.name,
        "microbatches_per_second": None if client.pace is None else round(1 / client.pace, 1),
        "state": "idle" if client.idle else "working" if client.lease else "late or starting",
        "step": None if lease is None else lease.step,
        "microbatches": 0 if lease is None else sum(map(len, lease.blocks)),
        "lease_seconds": left,
        "silent_seconds": round(now - client.heard, 3),
        "refused": client.refused,
    }
