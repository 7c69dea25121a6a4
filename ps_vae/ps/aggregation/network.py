"""A sorting network: pairs to compare and exchange, the same for any values.

Batcher's merge exchange, Knuth, "The Art of Computer Programming", volume 3, section 5.2.2, algorithm M: for n values
about n (log2 n)^2 / 4 pairs. What is compared does not depend on what was found, so many columns are sorted at once, a
vector register of them with each instruction.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["sorting_network"]


@cache
def sorting_network(count: int) -> npt.NDArray[np.int64]:
    """(pairs, 2): places i < j, in order; exchanged where the value at i is larger, they sort `count` values."""
    pairs: list[tuple[int, int]] = []
    highest = 1 << max(0, (count - 1).bit_length() - 1)
    p = highest
    while p > 0:
        q, r, d = highest, 0, p
        while True:
            pairs += [(i, i + d) for i in range(count - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2
    return np.array(pairs, np.int64).reshape(-1, 2)
