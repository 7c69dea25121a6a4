"""Choosing how to communicate from what a trial has measured.

A batch takes, where every H batches end in an exchange of b bytes through the server's link,

    computing + (latency + b / bandwidth) / H

Two trials with exchanges of different sizes give latency and bandwidth; what a worker computes it measures itself. The
candidates are in the order of what they cost in quality (README, *Few bytes*), the exact one first. Chosen is the first
under which workers compute for three fifths of the time, or else the fastest.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CANDIDATES", "CHOICE", "TINY", "Choice", "Link", "Measured", "choose", "link_between", "without_changes"]

CHOICE = "communication: "
"""What the line begins with that says what was chosen."""

# Of the time that workers should compute. With less exactness is given up only for a run that is far faster.
_ENOUGH = 0.6

TINY: Mapping[str, Any] = {"push_codec": "onebit", "pull_codec": "update:onebit"}
"""What the second trial sends, a thirtieth."""

_EIGHT_BITS: Mapping[str, Any] = {"push_codec": "int8", "pull_codec": "update:int8"}

CANDIDATES: tuple[Mapping[str, Any], ...] = (
    {},
    _EIGHT_BITS,
    *({"local_steps": count, **_EIGHT_BITS} for count in (16, 32, 64, 128)),
)
"""Of the run's options those that say how it communicates. Without `factors`, which nodes that are one worker cannot
send."""


def without_changes(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """For an asynchronous run, in which changes of weights do not add up: the weights themselves in 8 bits."""
    return {**options, "pull_codec": "int8"} if "pull_codec" in options else options


@dataclass(frozen=True, slots=True)
class Measured:
    """A trial.

    computing  seconds of a step that a worker computes
    exchange   the rest of the step
    bytes      of all pushes and pulls of a step
    workers    that took part
    """

    computing: float
    exchange: float
    bytes: float
    workers: int


@dataclass(frozen=True, slots=True)
class Link:
    """Between the server and its workers: seconds that an exchange takes whatever its size, and bytes a second."""

    latency: float
    bandwidth: float

    def seconds(self, size: float) -> float:
        """Of an exchange of so many bytes."""
        return self.latency + size / self.bandwidth


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why, in one line."""

    options: Mapping[str, Any]
    why: str


def link_between(large: Measured, small: Measured) -> Link:
    """The straight line through two exchanges; where the large one took no longer, their size does not matter."""
    if large.exchange <= small.exchange or large.bytes <= small.bytes:
        return Link(large.exchange, math.inf)
    bandwidth = (large.bytes - small.bytes) / (large.exchange - small.exchange)
    return Link(max(0.0, small.exchange - small.bytes / bandwidth), bandwidth)


def choose(
    large: Measured,
    small: Measured,
    size_of: Callable[[Mapping[str, Any]], float],
    candidates: Sequence[Mapping[str, Any]] = CANDIDATES,
) -> Choice:
    """The way in which to communicate.

    size_of  bytes of all pushes and pulls of a step with a candidate's options
    """
    link = link_between(large, small)

    def batch(options: Mapping[str, Any]) -> float:
        return large.computing + link.seconds(size_of(options)) / options.get("local_steps", 1)

    def part(options: Mapping[str, Any]) -> float:
        return large.computing / batch(options)

    best = next((options for options in candidates if part(options) >= _ENOUGH), None)
    best = min(candidates, key=batch) if best is None else best
    plain = candidates[0]
    dense = f"as it is {1e3 * batch(plain):.3g} ms a batch, {part(plain):.0%} of it computing"
    megabits = 8 * link.bandwidth / 1e6
    speed = f"{megabits:,.0f} Mbit/s" if math.isfinite(megabits) else "no limit to the bandwidth"
    what = f"{speed}, {1e3 * link.latency:.3g} ms, {large.workers} workers"
    if best is plain:
        return Choice(best, f"{CHOICE}{what}; {dense}: left as it is")
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in best.items())
    then = f"{1e3 * batch(best):.3g} ms, {part(best):.0%}"
    return Choice(best, f"{CHOICE}{what}; {dense}; chosen {words}: {then}")
