"""Philox4x32, a generator without a state: 128 bits of counter under 64 bits of key give four 32-bit words.

Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11. In each round, with M0, M1 and W0, W1
the constants below,

    (c0, c1, c2, c3) -> (high(M1 c2) ^ c1 ^ k0, low(M1 c2), high(M0 c0) ^ c3 ^ k1, low(M0 c0)),    k0 += W0, k1 += W1

Ten rounds is what the paper recommends, for the sake of caution; seven are the fewest that pass all tests of its
section 5 (TestU01's BigCrush).
"""

import numpy as np
from numba.extending import register_jitable

from ps_vae.jit import exact_kernel

__all__ = ["philox", "philox_after"]

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_WORD, _HALF_WORD = np.uint64(0xFFFFFFFF), np.uint64(32)


def _philox_after(
    rounds: int, c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, ...]:
    """Four words of a counter and a key, for use inside kernels; 32 bits each, as uint64: so products are wide.

    Copied into a kernel before LLVM sees it, which takes it for too long or not as the code around it happens to be:
    only where it is part of a loop does that become vector instructions, five times faster.
    """
    for _ in range(rounds):
        product_0 = _MULTIPLIER_0 * c0
        product_1 = _MULTIPLIER_1 * c2
        c0 = (product_1 >> _HALF_WORD) ^ c1 ^ k0
        c1 = product_1 & _WORD
        c2 = (product_0 >> _HALF_WORD) ^ c3 ^ k1
        c3 = product_0 & _WORD
        k0 = (k0 + _WEYL_0) & _WORD
        k1 = (k1 + _WEYL_1) & _WORD
    return c0, c1, c2, c3


philox_after = register_jitable(inline="always")(_philox_after)


@exact_kernel
def philox(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, ...]:
    """Ten rounds of a counter and a key."""
    return philox_after(10, c0, c1, c2, c3, k0, k1)
