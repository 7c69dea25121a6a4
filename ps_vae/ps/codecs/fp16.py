"""fp16: the nearest number of half precision (IEEE 754 binary16), ties to even.

    sign 1, exponent 5, fraction 10 bits;  |decode(encode(x)) - x| <= max(2^-11 |x|, 2^-25) for |x| <= 65504

Two numbers a word, the first in the low half; the last half word is zero where their number is odd: ceil(n / 2) words.
What lies beyond +-65504, the largest that there is, becomes +-65504, so that finite numbers stay finite. NaN and
infinity become infinity, and are refused where they arrive.

Conversion in float32 and integers of 32 bits, without a branch, as vector instructions of any width. |x| in
[2^e, 2^(e+1)), with e at least -14, counts k units of 2^(e-10):

    encode   2^(e+13), whose unit in the last place that is, plus |x| is 2^(e+13) + k units, rounded by the addition;
             a half's bits are then 1024 (e + 14) + k, whether k has a leading one (1024 <= k) or not (e = -14)
    decode   exponent and fraction move 13 places up; what has no leading one is (2^-14 + k units) - 2^-14

No state.
"""

import numpy as np

from ps_vae.jit import exact_kernel
from ps_vae.ps.codecs.codec import Codec, Matrix
from ps_vae.ps.codecs.halves import halves_codec

__all__ = ["fp16"]


def fp16(name: str, numbers: int, matrices: tuple[Matrix, ...]) -> Codec:
    """The codec for so many numbers, whatever they belong to."""
    return halves_codec(name, numbers, _pack, _unpack)


_SIGN, _MAGNITUDE = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
_EXPONENT, _INFINITE = np.uint32(0x7F800000), np.uint32(0x7F800000)
_LARGEST = np.float32(65504).view(np.uint32)
_SMALLEST_NORMAL = np.float32(2.0**-14).view(np.uint32)
_THIRTEEN_BINADES = np.uint32(13 << 23)
_FRACTION, _HALF = np.uint32(13), np.uint32(16)

_HALF_SIGN, _HALF_MAGNITUDE = np.uint32(0x8000), np.uint32(0x7FFF)
_HALF_INFINITE, _HALF_NORMAL = np.uint32(0x7C00), np.uint32(0x0400)
# Exponents of float32 begin 127 below zero, a half's 15 below; infinity has the last one in both.
_REBIAS = np.uint32((127 - 15) << 23)
_ONE_BINADE = np.uint32(1 << 23)
_NORMAL = np.float32(2.0**-14)


@exact_kernel
def _pack(bits, halves):  # type: ignore[no-untyped-def]
    for i in range(bits.size):
        x = np.uint32(bits[i] & _MAGNITUDE)
        bounded = np.uint32(min(x, _LARGEST))
        exponent = max(np.uint32(bounded & _EXPONENT), _SMALLEST_NORMAL)
        above = np.uint32(exponent + _THIRTEEN_BINADES)
        total = np.float32(above.view(np.float32) + bounded.view(np.float32))
        units = np.uint32(total.view(np.uint32) - above)
        half = np.uint32(((exponent - _SMALLEST_NORMAL) >> _FRACTION) + units)
        half = half if x < _INFINITE else _HALF_INFINITE
        halves[i] = half | (np.uint32(bits[i] & _SIGN) >> _HALF)
    for i in range(bits.size, halves.size):
        halves[i] = 0


@exact_kernel
def _unpack(halves, bits):  # type: ignore[no-untyped-def]
    largest = np.uint32(0)
    for i in range(bits.size):
        half = np.uint32(halves[i])
        magnitude = np.uint32(half & _HALF_MAGNITUDE)
        largest = max(largest, magnitude)
        normal = np.uint32((magnitude << _FRACTION) + _REBIAS)
        normal = normal if magnitude < _HALF_INFINITE else np.uint32(normal + _REBIAS)
        subnormal = np.float32(np.uint32(normal + _ONE_BINADE).view(np.float32) - _NORMAL)
        x = normal if magnitude >= _HALF_NORMAL else subnormal.view(np.uint32)
        bits[i] = x | (np.uint32(half & _HALF_SIGN) << _HALF)
    return largest < _HALF_INFINITE
