"""How the microbatches of a node are divided among its members: in proportion to their pace."""

from collections.abc import Sequence

from ps_vae.ps.work import fair_share

__all__ = ["shares"]

# A division that would take at most this many times as long as the best one stays.
_GOOD_ENOUGH = 1.1


def shares(left: int, paces: Sequence[float], before: Sequence[int] = ()) -> tuple[int, ...]:
    """How many of `left` microbatches each member computes, so that they end soon and together.

    paces   seconds a microbatch, of each member
    before  the shares of last time: they stay where they are good enough, so that a member has the same microbatches
            again, and what it keeps for them (caches, state) is where it is used
    """
    best: list[int] = []
    remaining = left
    for number, pace in enumerate(paces):
        share = fair_share(remaining, 1 / pace, sum(1 / other for other in paces[number + 1 :]))
        best.append(share)
        remaining -= share
    fits = len(before) == len(paces) and sum(before) == left
    if fits and _seconds(before, paces) <= _GOOD_ENOUGH * _seconds(best, paces):
        return tuple(before)
    return tuple(best)


def _seconds(division: Sequence[int], paces: Sequence[float]) -> float:
    """Until the last one is done."""
    return max((share * pace for share, pace in zip(division, paces, strict=True)), default=0.0)
