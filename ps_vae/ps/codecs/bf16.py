"""bf16: the upper half of each float32, rounded to the nearest, ties to even.

    sign 1, exponent 8, fraction 7 bits;  |decode(encode(x)) - x| <= 2^-8 |x| for normal x

Two numbers a word, the first in the low half; the last half word is zero where their number is odd: ceil(n / 2) words.
The range is that of float32. What lies beyond the largest bf16, (2 - 2^-7) 2^127, becomes the largest, so that finite
numbers stay finite. NaN and infinity stay what is not finite, and are refused where they arrive.

No state.
"""

import numpy as np

from ps_vae.jit import exact_kernel
from ps_vae.ps.codecs.codec import Codec, Matrix
from ps_vae.ps.codecs.halves import halves_codec

__all__ = ["bf16"]


def bf16(name: str, numbers: int, matrices: tuple[Matrix, ...]) -> Codec:
    """The codec for so many numbers, whatever they belong to."""
    return halves_codec(name, numbers, _pack, _unpack)


_HALF, _ONE = np.uint32(16), np.uint32(1)
_ALMOST_HALF = np.uint32(0x7FFF)
_SIGN, _MAGNITUDE = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
_LARGEST, _INFINITE = np.uint32(0x7F7F0000), np.uint32(0x7F800000)


@exact_kernel
def _pack(bits, halves):  # type: ignore[no-untyped-def]
    for i in range(bits.size):
        x = np.uint32(bits[i] & _MAGNITUDE)
        bounded = min(x, _LARGEST)
        rounded = np.uint32(bounded + _ALMOST_HALF + ((bounded >> _HALF) & _ONE))
        halves[i] = (np.uint32(bits[i] & _SIGN) | (rounded if x < _INFINITE else x)) >> _HALF
    for i in range(bits.size, halves.size):
        halves[i] = 0


@exact_kernel
def _unpack(halves, bits):  # type: ignore[no-untyped-def]
    largest = np.uint32(0)
    for i in range(bits.size):
        x = np.uint32(np.uint32(halves[i]) << _HALF)
        bits[i] = x
        largest = max(largest, np.uint32(x & _MAGNITUDE))
    return largest < _INFINITE
