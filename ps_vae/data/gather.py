"""Rows of a split as float32: picking, converting and scaling in one pass.

    out[i, j] = float32(stored[rows[i], j]) / divisor

A true division, not a product with the reciprocal: 255 becomes exactly 1, and every value is the float32 nearest to
the quotient. Where rows carry labels, the classes follow: 1 for the row's own, 0 for the others.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.dataset import Split
from ps_vae.data.permutation import ROUNDS, SPLIT_SEED, half_bits, permuted, round_keys
from ps_vae.jit import exact_kernel

__all__ = ["gather"]


def gather(split: Split, rows: npt.NDArray[np.int64], out: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Write the split's `rows` into `out` and return it.

    rows  (count,) int64, each 0 .. len(split) - 1, in any order, repeats allowed
    out   (count, width) float32, C-contiguous, overwritten

    For uint8 and float32 in native byte order nothing is allocated, memory-mapped or not; other types pass through
    NumPy with a copy of the rows. Raises IndexError for a row that the split does not have, ValueError for an
    `out` of another shape or type.
    """
    if out.shape != (len(rows), split.width) or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.dtype} {out.shape}, not C-contiguous float32 ({len(rows)}, {split.width})")
    if rows.dtype != np.int64 or rows.ndim != 1:
        raise ValueError(f"row numbers are a one-dimensional int64 array, not {rows.ndim}-dimensional {rows.dtype}")
    if split.labels is not None:
        out[:, split.features :] = 0
        out[np.arange(len(rows)), split.features + split.labels[split.where(rows)]] = 1
        _features(split, rows, out[:, : split.features])
    else:
        _features(split, rows, out)
    return out


def _features(split: Split, rows: npt.NDArray[np.int64], out: npt.NDArray[np.float32]) -> None:
    array = split.array
    if array.dtype in (np.uint8, np.float32) and array.flags.c_contiguous and array.flags.aligned:
        wrong = _gather(array, rows, split.start, len(split), split.shuffled, np.float32(split.divisor), out)
        if wrong >= 0:
            raise IndexError(f"row {rows[wrong]} of a split of {len(split)} rows")
    else:
        np.divide(array[split.where(rows)], split.divisor, out=out, casting="same_kind")


@exact_kernel
def _gather(
    array: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    start: int,
    length: int,
    shuffled: bool,
    divisor: np.float32,
    out: npt.NDArray[np.float32],
) -> int:
    """Returns the first place in `rows` that is out of range, or -1."""
    n = np.uint64(array.shape[0])
    half = half_bits(n)
    keys = np.empty(ROUNDS, np.uint64)
    round_keys(SPLIT_SEED, np.uint64(0), keys)
    for i in range(rows.shape[0]):
        row = rows[i]
        if row < 0 or row >= length:
            return i
        index = np.uint64(start + row)
        if shuffled:
            index = permuted(index, n, half, keys)
        stored = array[index]
        scaled = out[i]
        for j in range(stored.shape[0]):
            scaled[j] = np.float32(stored[j]) / divisor
    return -1
