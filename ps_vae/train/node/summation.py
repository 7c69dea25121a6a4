"""The sum of a block from pieces that several members computed, with the bits of one that computed it alone.

A piece is the sum of a block of the step's tree (ps.blocks). A node of the tree is the sum of its halves, whoever has
computed these: so the order of the additions follows from the block, and not from how it was cut into pieces.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ps_vae.ps.blocks import Block, halves
from ps_vae.ps.record import record
from ps_vae.ps.reduction import Metrics, add_metrics

__all__ = ["Piece", "tree_sum"]

Vector = npt.NDArray[np.float32]

# Elements that are summed to the end before the next ones are begun, so that what is on the way to the sum stays in a
# core's cache.
_STRETCH = 1 << 17


@record
class Piece:
    """Gradient and metrics, summed over a block."""

    gradient: Vector
    metrics: Metrics


def tree_sum(block: Block, pieces: Mapping[Block, Piece], out: Vector) -> Metrics:
    """Write the sum of `block` into `out`, and return that of its metrics.

    pieces  disjoint nodes of the tree that make up `block`, and any others; gradients have the size of `out`

    Raises KeyError where a microbatch of the block is in no piece.
    """
    depth = len(block).bit_length()
    scratch = [np.empty(min(_STRETCH, out.size), np.float32) for _ in range(depth)] if block not in pieces else []
    # A sum that is not finite is for the caller to find, as any that is not.
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, out.size, _STRETCH):
            stretch = slice(start, min(start + _STRETCH, out.size))
            found = _add_up(block, pieces, stretch, out[stretch], scratch)
            if block in pieces:
                np.copyto(out[stretch], found)
    return _add_metrics(block, pieces)


def _add_up(block: Block, pieces: Mapping[Block, Piece], stretch: slice, out: Vector, scratch: list[Vector]) -> Vector:
    """The stretch's sum: in `out`, or in the piece where one is the whole block."""
    piece = pieces.get(block)
    if piece is not None:
        return piece.gradient[stretch]
    if len(block) == 1:
        raise KeyError(block)
    first, second = halves(block)
    left = _add_up(first, pieces, stretch, out, scratch[1:])
    right = _add_up(second, pieces, stretch, scratch[0][: out.size], scratch[1:])
    return np.add(left, right, out=out)


def _add_metrics(block: Block, pieces: Mapping[Block, Piece]) -> Metrics:
    piece = pieces.get(block)
    if piece is not None:
        return piece.metrics
    first, second = halves(block)
    return add_metrics(_add_metrics(first, pieces), _add_metrics(second, pieces))
