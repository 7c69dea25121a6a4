"""The ways to aggregate a step, by the words that users say: `mean`, `median`, `trimmed:0.2`."""

from collections.abc import Callable
from fractions import Fraction

from ps_vae.errors import UsageError
from ps_vae.ps.record import record

__all__ = ["AGGREGATIONS", "MEAN", "MOST_SEPARATE", "Aggregation", "aggregation_for"]

MEAN = "mean"

MOST_SEPARATE = 256
"""Microbatches of a step that are pushed one by one: a worker may have all of them, and two frames of each have to find
room in a socket's queue, which takes a thousand."""


@record
class Aggregation:
    """In each coordinate the mean of the middle values, times the number of all.

    trimmed  of 1, what is left out at either end; a half: all but the middle one, or the middle two
    """

    words: str
    trimmed: Fraction

    def cut(self, count: int) -> int:
        """How many of so many values are left out at either end."""
        return min(int(self.trimmed * count), (count - 1) // 2)


def _median(words: str, said: list[str]) -> Aggregation:
    if said:
        raise UsageError("write median")
    return Aggregation(words, Fraction(1, 2))


def _trimmed(words: str, said: list[str]) -> Aggregation:
    try:
        # As it is written: 0.3 of 10 are 3.
        (fraction,) = map(Fraction, said)
    except (ValueError, ZeroDivisionError):
        raise UsageError("write trimmed:F, such as trimmed:0.2") from None
    if not 0 < fraction < Fraction(1, 2):
        raise UsageError("what is left out at either end is more than 0 and less than 0.5")
    return Aggregation(words, fraction)


AGGREGATIONS: dict[str, Callable[[str, list[str]], Aggregation]] = {"median": _median, "trimmed": _trimmed}


def aggregation_for(words: str) -> Aggregation | None:
    """What the user means; None for the mean, which is the sum in the order of the tree.

    Raises UsageError where there is no such way.
    """
    if words == MEAN:
        return None
    name, *said = words.split(":")
    if name not in AGGREGATIONS:
        raise UsageError(f"there is no such way; choose {MEAN}, median or trimmed:F")
    return AGGREGATIONS[name](words, said)
