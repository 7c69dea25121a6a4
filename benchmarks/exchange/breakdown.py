"""Where the time of an exchange goes, from the stamps of a worker and of the servers, which share one clock.

    worker    begun ---- computed -- sent ............................................ ended
    server                                    came -- done ........ came -- done
                                              its own push          the last one of the step

    compute   begun to computed
    encode    computed to sent: the push made ready and handed over, to ZeroMQ or as a place in memory
    apply     came to done, of its own push and of the one that completes the step: the numbers checked, added, applied,
              published
    wait      from its own push done to the last one's coming: for other workers
    wire      the rest: ZeroMQ, the kernel and the processes' waking up, both ways

Of several shards the one that was done last counts: the worker waits for it.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

__all__ = ["PARTS", "Exchange", "Handled", "Parts", "handled", "split", "typical"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A worker's: the step, the first microbatch of each of its blocks, and stamps in nanoseconds."""

    step: int
    starts: tuple[int, ...]
    begun: int
    computed: int
    sent: int
    ended: int


@dataclass(frozen=True, slots=True)
class Handled:
    """A shard's account of one push, in nanoseconds; `completes`: the step was applied with it."""

    step: int
    start: int
    came: int
    done: int
    completes: bool


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds of an exchange."""

    compute: float
    encode: float
    wire: float
    wait: float
    apply: float

    @property
    def total(self) -> float:
        return sum(astuple(self))


PARTS = tuple(field.name for field in fields(Parts))


def handled(rows: Sequence[Sequence[Any]]) -> dict[int, list[Handled]]:
    """A server's "pushes", by step."""
    steps: dict[int, list[Handled]] = {}
    for row in rows:
        steps.setdefault(row[0], []).append(Handled(*row))
    return steps


def split(exchange: Exchange, shards: Sequence[dict[int, list[Handled]]]) -> Parts | None:
    """The parts of a synchronous exchange, which add up to it; None where a shard did not take its pushes.

    shards  what `handled` makes of each server
    """
    found = [_at_shard(exchange, pushes.get(exchange.step, [])) for pushes in shards]
    known = [times for times in found if times is not None]
    if len(known) < len(shards):
        return None
    # (came, done of its own; came, done of the last; nanoseconds in both)
    came, done, last_came, _, busy = max(known, key=lambda times: times[3])
    compute = exchange.computed - exchange.begun
    # Memory may be read at the other end before the sender is back from sending.
    encode = max(0, min(exchange.sent, came) - exchange.computed)
    wait = max(0, last_came - done)
    wire = exchange.ended - exchange.begun - compute - encode - wait - busy
    return Parts(*(part / 1e9 for part in (compute, encode, wire, wait, busy)))


def typical(parts: Sequence[Parts]) -> Parts | None:
    """Means over the middle half of the exchanges, by how long they took: they add up, and no outlier is among them."""
    if not parts:
        return None
    ordered = sorted(parts, key=lambda one: one.total)
    middle = ordered[len(ordered) // 4 : max(len(ordered) // 4 + 1, len(ordered) - len(ordered) // 4)]
    return Parts(*(sum(column) / len(middle) for column in zip(*map(astuple, middle), strict=True)))


def _at_shard(exchange: Exchange, pushes: Sequence[Handled]) -> tuple[int, int, int, int, int] | None:
    own = [push for push in pushes if push.start in exchange.starts]
    last = next((push for push in pushes if push.completes), None)
    if not own or last is None:
        return None
    busy = sum(push.done - push.came for push in own)
    if last not in own:
        busy += last.done - last.came
    done = max(push.done for push in own)
    return min(push.came for push in own), done, max(last.came, done), last.done, busy
