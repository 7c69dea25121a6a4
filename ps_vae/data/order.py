"""The order in which examples are visited.

Epochs are one endless stream without remainders. Position p of the stream is in epoch p // n, and shows the row

    row(p) = permutation_{seed, p // n}(p mod n)

so which rows are in a batch follows from (seed, position) alone: batch s of size B is positions s B .. s B + B - 1,
also where it runs from one epoch into the next. Every n consecutive positions from a multiple of n are all n rows.
"""

import numpy as np
import numpy.typing as npt

from ps_vae.data.permutation import LARGEST, ROUNDS, half_bits, permuted, round_keys
from ps_vae.errors import UsageError
from ps_vae.jit import exact_kernel

__all__ = ["rows_of"]


def rows_of(seed: int, first_position: int, n: int, out: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rows at positions first_position, first_position + 1, ...: fills `out` and returns it.

    seed            0 .. 2^64 - 1
    first_position  0 .. 2^63 - 1 - len(out)
    n               number of rows, 1 .. 2^62
    out             (count,) int64, each 0 .. n-1 afterwards

    Raises UsageError where a number is out of its range.
    """
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"seed {seed} is out of range: choose one from 0 to 2^64 - 1")
    if not 1 <= n <= LARGEST:
        raise UsageError(f"cannot order {n} rows: from 1 to 2^62 are possible")
    if not 0 <= first_position < (1 << 63) - len(out):
        raise UsageError(f"position {first_position} is out of range: 0 to 2^63 - 1")
    if out.dtype != np.int64 or out.ndim != 1:
        raise UsageError(f"row numbers go into a one-dimensional int64 array, not {out.ndim}-dimensional {out.dtype}")
    _rows_of(np.uint64(seed), np.uint64(first_position), np.uint64(n), out)
    return out


@exact_kernel
def _rows_of(seed: np.uint64, first_position: np.uint64, n: np.uint64, out: npt.NDArray[np.int64]) -> None:
    half = half_bits(n)
    keys = np.empty(ROUNDS, np.uint64)
    epoch = first_position // n
    index = first_position % n
    round_keys(seed, epoch, keys)
    for i in range(out.shape[0]):
        if index == n:
            epoch += np.uint64(1)
            index = np.uint64(0)
            round_keys(seed, epoch, keys)
        out[i] = permuted(index, n, half, keys)
        index += np.uint64(1)
