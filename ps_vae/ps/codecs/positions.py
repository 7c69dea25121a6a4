"""Ascending positions in few bits, always the same number of them.

Elias, "Efficient storage and retrieval by content and address of static files", J. ACM 21(2), 1974; Fano 1971. Of count
positions below size, b = `low_bits` each:

    low   the lower b bits of each, one after the other
    high  position j in full is 2^b high_j + low_j: bit number high_j + j is set, all others are zero

32 bits a word, the first lowest: ceil(count b / 32) words and ceil((count + ((size - 1) >> b)) / 32) words. With the b
that makes them fewest a position takes 1.91 to 2 bits more than log2(size / count). No code whatever takes less than
1.44 more, on the average over all sets of so few positions.
"""

import numpy as np

from ps_vae.jit import exact_kernel
from ps_vae.ps.codecs.masks import lowest

__all__ = ["low_bits", "position_words", "read_positions", "write_positions"]

_WORD_BITS = 32
_ONE = np.uint32(1)


def low_bits(count: int, size: int) -> int:
    """The b for so many positions below `size`: that with the fewest bits, of several the least."""
    return min(range(max(1, size.bit_length())), key=lambda b: count * b + ((size - 1) >> b))


def position_words(count: int, size: int) -> tuple[int, int]:
    """Words of `low` and of `high`."""
    b = low_bits(count, size)
    return -(-count * b // _WORD_BITS), -(-(count + ((size - 1) >> b)) // _WORD_BITS)


@exact_kernel
def write_positions(positions, b, low, high):  # type: ignore[no-untyped-def]
    """Write int64 positions, ascending, as uint32 words."""
    low[:] = 0
    high[:] = 0
    mask = (np.int64(1) << b) - 1
    for j in range(positions.size):
        position = positions[j]
        place = (position >> b) + j
        high[place >> 5] |= np.uint32(_ONE << np.uint32(place & 31))
        if b > 0:
            place = j * b
            part = np.uint64(position & mask) << np.uint64(place & 31)
            low[place >> 5] |= np.uint32(part)
            if (place & 31) + b > _WORD_BITS:
                low[(place >> 5) + 1] |= np.uint32(part >> np.uint64(_WORD_BITS))


@exact_kernel
def read_positions(low, high, b, size, positions):  # type: ignore[no-untyped-def]
    """The reverse; how many positions there are, and the first that is not below `size` or does not ascend, or -1.

    positions  written into up to there; where there are more than it takes, the count is one more
    """
    mask = (np.int64(1) << b) - 1
    found, last = 0, np.int64(-1)
    for word in range(high.size):
        bits = high[word]
        while bits:
            if found == positions.size:
                return found + 1, np.int64(-1)
            position = (np.int64(word) * _WORD_BITS + lowest(bits) - found) << b
            if b > 0:
                place = found * b
                part = np.uint64(low[place >> 5])
                if (place & 31) + b > _WORD_BITS:
                    part |= np.uint64(low[(place >> 5) + 1]) << np.uint64(_WORD_BITS)
                position |= np.int64(part >> np.uint64(place & 31)) & mask
            if position <= last or position >= size:
                return found, position
            positions[found] = last = position
            found += 1
            bits &= np.uint32(bits - _ONE)
    return found, np.int64(-1)
