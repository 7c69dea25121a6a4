"""Where matrices lie among a slice's numbers."""

from collections.abc import Sequence
from itertools import pairwise

from ps_vae.errors import UsageError
from ps_vae.ps.codecs.codec import Matrix

__all__ = ["check_matrices", "outside"]


def check_matrices(codec: str, numbers: int, matrices: Sequence[Matrix]) -> None:
    """UsageError unless they are disjoint, in ascending order, of at least one element each and within the numbers."""
    end = 0
    for matrix in matrices:
        if matrix.rows < 1 or matrix.columns < 1:
            raise UsageError(f"codec {codec!r}: {matrix} is empty; leave it out")
        if matrix.start < end:
            raise UsageError(
                f"codec {codec!r}: {matrix} begins before {end}; give disjoint matrices in ascending order"
            )
        end = matrix.start + matrix.rows * matrix.columns
        if end > numbers:
            raise UsageError(f"codec {codec!r}: {matrix} ends at {end}, of {numbers} numbers")


def outside(numbers: int, matrices: Sequence[Matrix]) -> list[slice]:
    """The elements that belong to none of these matrices."""
    ends = ((matrix.start, matrix.start + matrix.rows * matrix.columns) for matrix in matrices)
    bounds = [0, *(bound for pair in ends for bound in pair), numbers]
    return [slice(a, b) for a, b in list(pairwise(bounds))[::2] if a < b]
