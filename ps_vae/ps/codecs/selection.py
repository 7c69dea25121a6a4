"""The k largest of many magnitudes, exactly k of them, without sorting: for codecs that send those alone.

Magnitudes are compared as whole numbers, the bits of a float32 without its sign: the same order, infinity and then NaN
at its end. Of equal ones the first count as larger, so what is selected follows from the numbers alone.

    sample       some thousand numbers, in runs of a cache line spread over the vector, say above which magnitude, the
                 floor, rather more than k may be expected
    candidates   those not below the floor, gathered while the numbers are in a cache for another reason; where they are
                 fewer than k the sample has misled, and a lower floor follows
    k-th largest of the candidates, by their digits of 11 bits, the highest first, a histogram each

One pass over memory, whatever k is.
"""

import math

import numpy as np
import numpy.typing as npt

from ps_vae.jit import exact_kernel
from ps_vae.ps.codecs.masks import lowest, not_below

__all__ = ["RUN", "SAMPLE", "floor_of", "gather", "kth_largest", "sample_starts"]

Integers = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]

RUN = 16
SAMPLE = 512 * RUN
"""Of a vector with more numbers than this so many are looked at first, in runs of RUN."""

# Odd, and near 2^32 / golden ratio: its multiples are spread evenly over 32 bits.
_SPREAD = 0x9E3779B1

_MAGNITUDE, _ONE = np.int32(0x7FFFFFFF), np.uint32(1)
_MASK = 32
_DIGIT = 11
# Neighbours are alike: what a sample says is less sure than if its numbers were drawn one by one.
_SAFETY = 5


def sample_starts(numbers: int) -> Places:
    """Where the runs of a sample begin: one in each of equal parts of the vector, and in each at another place, so that
    they do not meet the same columns of a matrix again and again."""
    runs = SAMPLE // RUN
    part = numbers // runs
    chances = np.arange(runs, dtype=np.uint64) * np.uint64(_SPREAD) % np.uint64(2**32)
    within = (chances * np.uint64(part - RUN + 1)) >> np.uint64(32)
    return np.arange(runs) * part + within.astype(np.int64)


def floor_of(sample: Integers, k: int, numbers: int, failures: int) -> int:
    """What to gather from on, so that k of `numbers` are likely to be found; lower with every failure, finally 0.

    sample  (SAMPLE,) magnitudes of some of the numbers, as int32
    """
    expected = sample.size * k / numbers
    rank = math.ceil((expected + _SAFETY * math.sqrt(expected) + _SAFETY) * 4.0**failures)
    return int(kth_largest(sample, rank)[0]) if rank < sample.size else 0


@exact_kernel
def kth_largest(keys, k):  # type: ignore[no-untyped-def]
    """The k-th largest of int32 keys, none negative, k >= 1 of them at least; how many equal to it are among the k."""
    counts = np.empty(1 << _DIGIT, np.int64)
    prefix, missing = np.int64(0), np.int64(k)
    for part in range(3):
        shift = (2 - part) * _DIGIT
        counts[:] = 0
        for i in range(keys.size):
            key = np.int64(keys[i])
            if key >> (shift + _DIGIT) == prefix:
                counts[(key >> shift) & (counts.size - 1)] += 1
        digit = counts.size - 1
        while counts[digit] < missing:
            missing -= counts[digit]
            digit -= 1
        prefix = prefix << _DIGIT | digit
    return prefix, missing


@exact_kernel
def gather(bits, first, floor, places, keys, found):  # type: ignore[no-untyped-def]
    """Append to `places` and `keys`, which hold `found`, where magnitudes are not below `floor`; how many they hold.

    bits   some of a vector's numbers, as int32, from number `first` on
    floor  int32
    """
    whole = bits.size // _MASK * _MASK
    for start in range(0, whole, _MASK):
        mask = not_below(bits, start, floor)
        while mask:
            i = start + lowest(mask)
            places[found] = first + i
            keys[found] = bits[i] & _MAGNITUDE
            found += 1
            mask &= np.uint32(mask - _ONE)
    for i in range(whole, bits.size):
        if bits[i] & _MAGNITUDE >= floor:
            places[found] = first + i
            keys[found] = bits[i] & _MAGNITUDE
            found += 1
    return found
