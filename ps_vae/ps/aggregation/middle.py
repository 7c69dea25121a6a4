"""The middle of what microbatches say, coordinate by coordinate: median and trimmed mean.

    of count values, sorted: x_1 <= ... <= x_count
    count / (count - 2 cut) * (x_cut+1 + ... + x_count-cut)

which is `count` times their mean without the `cut` smallest and the `cut` largest, or, where one or two are left, their
median. It is of the size of the sum that it stands for. As long as no more than `cut` of the values are arbitrary it
lies between the smallest and the largest of the others. Yin, Chen, Ramchandran & Bartlett 2018, "Byzantine-robust
distributed learning: towards optimal statistical rates", definitions 1 and 2.
"""

import numpy as np
import numpy.typing as npt

from ps_vae.jit import exact_kernel
from ps_vae.ps.aggregation.network import sorting_network

__all__ = ["middle", "middle_of_metrics"]

Array = npt.NDArray[np.float32]

# Columns sorted at a time: 64 rows of them are 64 KiB, and stay in a level-2 cache meanwhile.
_TILE = 256


def middle(table: Array, cut: int, out: Array) -> None:
    """Overwrite `out` with the middle of the columns of `table`, and the table with anything.

    table  (count, size) float32, finite; contiguous rows
    cut    values left out at either end; fewer than half
    out    (size,) float32

    The values that are left are added in float64, from the smallest to the largest: neither the order of the rows nor
    the place of a column shows in the bits.
    """
    _middle(table, sorting_network(len(table)), cut, len(table) / (len(table) - 2 * cut), out)


def middle_of_metrics(metrics: list[tuple[float, ...]], cut: int) -> tuple[float, ...]:
    """The same of the rows' metrics, in float64."""
    kept = np.sort(np.array(metrics, np.float64), axis=0)[cut : len(metrics) - cut]
    return tuple(len(metrics) * float(mean) for mean in kept.mean(axis=0))


@exact_kernel
def _middle(table, pairs, cut, scale, out):  # type: ignore[no-untyped-def]
    count, size = table.shape
    total = np.empty(_TILE, np.float64)
    for start in range(0, size, _TILE):
        stop = min(start + _TILE, size)
        for pair in range(pairs.shape[0]):
            low, high = table[pairs[pair, 0], start:stop], table[pairs[pair, 1], start:stop]
            for i in range(stop - start):
                a, b = low[i], high[i]
                low[i] = b if b < a else a
                high[i] = a if b < a else b
        total[:] = 0.0
        for row in range(cut, count - cut):
            values = table[row, start:stop]
            for i in range(stop - start):
                total[i] += values[i]
        for i in range(stop - start):
            out[start + i] = np.float32(total[i] * scale)
