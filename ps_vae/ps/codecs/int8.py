"""int8: whole multiples of a scale that 512 numbers share, rounded up or down by chance, right on the average.

For each block of 512 numbers (the last may have fewer), in float32,

    scale = max |x| / 127, at least 2^-110
    t     = 65536 x / scale, rounded to a whole number; |t| <= 127 * 65536
    q     = floor((t + r) / 65536),   r in {0, ..., 65535} by chance;   decoded: q * scale

q is one of the two whole numbers beside t / 65536, the upper one with just the probability that makes t / 65536 the
average. QSGD (Alistarh, Grubic, Li, Tomioka & Vojnovic, "QSGD: Communication-efficient SGD via gradient quantization
and encoding", NIPS 2017, section 3.1, Q_s) with s = 127 levels, in blocks and with the largest number in place of the
Euclidean norm as in its experiments, and with 8 bits a number in place of Elias's code. What sixteen random bits and
the arithmetic leave:

    |E[decoded] - x| <= 2^-15 scale,    |decoded - x| <= (1 + 2^-15) scale

(2^-17 from t as a whole number, 2^-16 from the product before, 2^-17 from the one at the end). A number below
2^-17 scale is always zero. What is sent for a scale beyond (largest float32) / 128 is that: such a block comes out
smaller, by a part in 128 at most.

Words: the scales as float32, one a block, then the q as bytes in two's complement, four a word, the first lowest; bytes
that are left over are zero: ceil(n / 512) + ceil(n / 4) words. A block with NaN or infinity in it has a scale that is
not finite, and is refused where it arrives.

Random numbers: element i of block b takes half (i mod 2), the low one first, of word (i div 128) of

    philox(counter [64 b + (i div 2) mod 64, number, step, 255], key [seed low, seed high])

after seven rounds: they are half of what encoding costs. 255 is this codec's own: streams of noise, which stand in the
low byte of that word, count from 0. In this order neighbours in a vector register are neighbours in memory.

No state: what is right on the average leaves nothing to make up for.
"""

import numpy as np

from ps_vae.errors import PeerError
from ps_vae.jit import exact_kernel
from ps_vae.philox import philox_after
from ps_vae.ps.codecs.codec import Codec, Key, Matrix, State, Vector, Words, check_words
from ps_vae.ps.codecs.prefetch import AHEAD, NUMBERS_OF_A_LINE, soon_written

__all__ = ["int8"]

_BLOCK = 512


def int8(name: str, numbers: int, matrices: tuple[Matrix, ...]) -> Codec:
    """The codec for so many numbers, whatever they belong to."""
    blocks = -(-numbers // _BLOCK)
    words = blocks + -(-numbers // 4)

    def encode(gradient: Vector, state: State, key: Key, out: Words) -> None:
        seed, step, number = (np.uint64(part) for part in key)
        _encode(gradient, out[:blocks].view(np.float32), out[blocks:].view(np.int8), seed, step, number)

    def decode(payload: Words, out: Vector) -> None:
        check_words(name, payload, words, numbers)
        scales = payload[:blocks].view(np.float32)
        refused = _decode(scales, payload[blocks:].view(np.int8), out)
        if refused >= 0:
            text = f"the scale of block {refused} of {blocks} is {scales[refused]}, not from {_FINEST} to {_COARSEST}"
            raise PeerError("bad-payload", f"{name}: {text}")

    return Codec(name, numbers, words, {}, encode, decode)


_GROUPS = _BLOCK // 8
_STREAM = np.uint64(255)
_WORD, _HALF_WORD = np.uint64(0xFFFFFFFF), np.uint64(32)
_MAGNITUDE, _INFINITY = np.uint32(0x7FFFFFFF), np.float32(np.inf)
_LEVELS, _UNITS, _UNIT_BITS = np.float32(127), np.float32(65536), np.int32(16)
# 65536 / scale has to be finite, and so has -128 * scale, which no encoder says but a byte can.
_FINEST = np.float32(2.0**-110)
_COARSEST = np.finfo(np.float32).max / np.float32(128)


@exact_kernel
def _encode(gradient, scales, quanta, seed, step, number):  # type: ignore[no-untyped-def]
    words = np.empty((4, _GROUPS), np.uint32)
    chances = words.reshape(-1).view(np.uint16)
    for block in range(scales.size):
        x = gradient[block * _BLOCK : (block + 1) * _BLOCK]
        q = quanta[block * _BLOCK : block * _BLOCK + x.size]
        largest = _largest_magnitude(x.view(np.uint32))
        if not largest < _INFINITY:
            scales[block] = largest
            q[:] = 0
            continue
        _random_words(words, np.uint64(block * _GROUPS), number, step, seed)
        scale = max(largest / _LEVELS, _FINEST)
        scales[block] = min(scale, _COARSEST)
        units = _UNITS / scale
        for i in range(x.size):
            # Not beyond 127 units: the largest number is just that, whatever its fraction.
            t = np.int32(np.rint(x[i] * units))
            q[i] = np.int32(t + np.int32(chances[i])) >> _UNIT_BITS
    for i in range(gradient.size, quanta.size):
        quanta[i] = 0


@exact_kernel
def _largest_magnitude(bits):  # type: ignore[no-untyped-def]
    largest = np.uint32(0)
    for i in range(bits.size):
        # As whole numbers magnitudes have the same order, with infinity and then NaN at its end.
        largest = max(largest, np.uint32(bits[i] & _MAGNITUDE))
    return np.uint32(largest).view(np.float32)


@exact_kernel
def _random_words(words, first, number, step, seed):  # type: ignore[no-untyped-def]
    for group in range(words.shape[1]):
        counter = first + np.uint64(group)
        w0, w1, w2, w3 = philox_after(7, counter, number, step, _STREAM, seed & _WORD, seed >> _HALF_WORD)
        words[0, group] = w0
        words[1, group] = w1
        words[2, group] = w2
        words[3, group] = w3


@exact_kernel
def _decode(scales, quanta, out):  # type: ignore[no-untyped-def]
    for block in range(scales.size):
        scale = scales[block]
        if not _FINEST <= scale <= _COARSEST:
            return block
        start = block * _BLOCK
        for line in range(start + AHEAD, start + AHEAD + _BLOCK, NUMBERS_OF_A_LINE):
            soon_written(out, line)
        numbers = out[start : start + _BLOCK]
        q = quanta[start : start + numbers.size]
        for i in range(numbers.size):
            numbers[i] = np.float32(q[i]) * scale
    return -1
