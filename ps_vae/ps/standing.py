"""How a run is going, as plain data: what `status` shows."""

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from ps_vae.ps.fleet import Fleet
from ps_vae.ps.members import Client

__all__ = ["Speed", "as_json", "of_client", "of_fleet", "of_time"]

_SPEED_SECONDS = 10.0
# A `state` message carries 60 KiB.
_LIMIT = 60 * 1024


class Speed:
    """Versions a second, over the last ten seconds."""

    def __init__(self) -> None:
        self._progress: deque[tuple[float, int]] = deque(maxlen=64)

    def note(self, now: float, version: int) -> None:
        """`version` was reached now."""
        self._progress.append((now, version))

    def per_second(self, now: float) -> float:
        """0 where nothing moves."""
        recent = [(time, version) for time, version in self._progress if now - time < _SPEED_SECONDS]
        if len(recent) < 2 or recent[-1][0] == recent[0][0]:
            return 0.0
        return (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0])


def of_client(client: Client) -> dict[str, Any]:
    """One worker."""
    return {
        "name": client.name,
        "microbatches_per_second": None if client.pace is None else round(1 / client.pace, 1),
        "state": "idle" if client.idle else "working" if client.lease else "late or starting",
        "refused": client.refused,
    }


def of_time(workers: Sequence[Client]) -> dict[str, float]:
    """Where the workers' time went, as parts of 1: waiting is for weights and for work."""
    spans = [sum(column) for column in zip(*(worker.seconds for worker in workers), strict=True)]
    total = sum(spans)
    if total == 0.0:
        return {}
    names = ("computing", "encoding", "waiting")
    return {name: round(span / total, 4) for name, span in zip(names, spans, strict=True)}


def of_fleet(fleet: Fleet) -> list[dict[str, Any]]:
    """The shards in order."""
    return [{"address": shard.address, "up": shard.is_up, "version": shard.version} for shard in fleet.shards]


def as_json(state: dict[str, Any]) -> bytes:
    """The state as JSON text that fits in a message: of many workers, or shards, only the first are listed."""
    text = json.dumps(state).encode()
    kept = {name: len(state[name]) for name in ("workers", "shards") if name in state}
    while len(text) > _LIMIT and any(kept.values()):
        longest = max(kept, key=lambda name: kept[name])
        kept[longest] //= 2
        text = json.dumps({**state, **{name: state[name][:count] for name, count in kept.items()}}).encode()
    return text
