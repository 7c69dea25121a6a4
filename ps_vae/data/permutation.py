"""A keyed permutation of 0 .. n-1, evaluated index by index: no table, no memory, at any n.

A balanced Feistel network of ROUNDS rounds permutes the smallest domain of 4^h >= n numbers; with an index written
as two halves of h bits, a round is

    (left, right) -> (right, left xor F(right xor key_round)),

a bijection whatever F is. An image outside 0 .. n-1 is sent through the network again until it falls inside (cycle
walking: Black & Rogaway 2002, "Ciphers with arbitrary finite domains"), which ends because a permutation's cycle
comes back to where it began; fewer than four turns are expected as the domain is less than 4 n. F is the finaliser of
SplitMix64 (Steele et al. 2014; constants: Stafford's variant 13), and the round keys are SplitMix64's
outputs for a state hashed from (seed, epoch).

This shuffles; it is no cipher. Its values decide which example is where in a run: changing anything here changes the
bits of every run.
"""

import numpy as np
import numpy.typing as npt

from ps_vae.jit import exact_kernel

__all__ = ["LARGEST", "SPLIT_SEED", "half_bits", "permuted", "round_keys"]

LARGEST = 1 << 62
"""Largest n."""

SPLIT_SEED = np.uint64(0x7073_5F76_6165)
"""Key of the permutation that assigns rows to splits: the same in every run."""

ROUNDS = 8
# Below 2^6 numbers a Feistel network reaches too few permutations to look random; tiny n walk a little longer.
_FEWEST_HALF_BITS = np.uint64(3)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_ONE, _27, _30, _31 = np.uint64(1), np.uint64(27), np.uint64(30), np.uint64(31)


@exact_kernel
def half_bits(n: np.uint64) -> np.uint64:
    """The smallest h, and at least 3, such that 4^h >= n; all uint64."""
    # Numba compares signed with unsigned numbers as float64, which is wrong beyond 2^53.
    half = _FEWEST_HALF_BITS
    while half < _31 and (_ONE << (half + half)) < n:
        half += _ONE
    return half


@exact_kernel
def round_keys(seed: np.uint64, epoch: np.uint64, keys: npt.NDArray[np.uint64]) -> None:
    """Fill `keys` (ROUNDS,)."""
    state = _mix(_mix(seed + _GOLDEN) ^ (epoch + _GOLDEN))
    for i in range(keys.shape[0]):
        state += _GOLDEN
        keys[i] = _mix(state)


@exact_kernel
def permuted(index: np.uint64, n: np.uint64, half: np.uint64, keys: npt.NDArray[np.uint64]) -> np.uint64:
    """Image of `index` among 0 .. n-1; `half` from half_bits(n), `keys` from round_keys."""
    mask = (_ONE << half) - _ONE
    while True:
        left = index >> half
        right = index & mask
        for i in range(keys.shape[0]):
            left, right = right, left ^ (_mix(right ^ keys[i]) & mask)
        index = (left << half) | right
        if index < n:
            return index


@exact_kernel
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _30)) * _FIRST
    x = (x ^ (x >> _27)) * _SECOND
    return x ^ (x >> _31)
