"""onebit: the sign of each number, and for each 512 of them their mean magnitude; what that leaves out is sent later.

With p = gradient + residual, in float32, for each block of 512 numbers (the last may have fewer)

    scale = mean |p|,    decoded = -scale where p has its sign bit set, else scale,    residual <- p - decoded

EF-signSGD: Karimireddy, Rebjock, Stich & Jaggi, "Error feedback fixes SignSGD and other gradient compression schemes",
ICML 2019, algorithm 1 (the sign times ||p||_1 / d), for each block of d numbers, the learning rate left to the server.
Accuracy: for a block, |decoded - p|^2 = |p|^2 - d scale^2, which is less than |p|^2 unless p is zero; and nothing is
lost: what was sent and the residual add up to the gradients.

The mean: magnitudes times 2^-9, so that no sum overflows; a short block filled up with zeros to 512; number i added to
sum i mod 64, in order; the upper half of the sums added to the lower, and so on down to one; where the block is short,
times 512 / count.

Words: the scales as float32, one a block, then the sign bits, 32 a word, the first lowest; bits that are left over are
zero: ceil(n / 512) + ceil(n / 32) words. A block with NaN or infinity in it has a scale that is not finite, and is
refused where it arrives; its residual is no number from then on.

State: `residual`, n numbers.
"""

import numpy as np

from ps_vae.errors import PeerError
from ps_vae.jit import exact_kernel
from ps_vae.ps.codecs.codec import Codec, Key, Matrix, State, Vector, Words, check_words
from ps_vae.ps.codecs.prefetch import AHEAD, NUMBERS_OF_A_LINE, soon_read, soon_written
from ps_vae.ps.codecs.signs import BLOCK, add_and_sum, subtract_signed, write_signed

__all__ = ["onebit"]

_BITS = 32


def onebit(name: str, numbers: int, matrices: tuple[Matrix, ...]) -> Codec:
    """The codec for so many numbers, whatever they belong to."""
    blocks = -(-numbers // BLOCK)
    words = blocks + -(-numbers // _BITS)

    def encode(gradient: Vector, state: State, key: Key, out: Words) -> None:
        _encode(gradient, state["residual"], out[:blocks].view(np.float32), out[blocks:])

    def decode(payload: Words, out: Vector) -> None:
        check_words(name, payload, words, numbers)
        scales = payload[:blocks]
        refused = _decode(scales, payload[blocks:], out.view(np.uint32))
        if refused >= 0:
            text = f"the scale of block {refused} of {blocks} is {scales.view(np.float32)[refused]}"
            raise PeerError("bad-payload", f"{name}: {text}, not finite and without a sign")

    return Codec(name, numbers, words, {"residual": numbers}, encode, decode)


_SIGN, _INFINITE = np.uint32(0x80000000), np.uint32(0x7F800000)
_LAST = np.uint32(_BITS - 1)
_WORDS = BLOCK // _BITS


@exact_kernel
def _encode(gradient, residual, scales, signs):  # type: ignore[no-untyped-def]
    p = np.empty(BLOCK, np.float32)
    whole = gradient.size // BLOCK
    for block in range(whole):
        start = block * BLOCK
        for line in range(start + AHEAD, start + AHEAD + BLOCK, NUMBERS_OF_A_LINE):
            soon_read(gradient, line)
            soon_written(residual, line)
        scale = np.float32(add_and_sum(gradient, residual, start, p))
        scales[block] = scale
        subtract_signed(p, scale.view(np.uint32), residual, start, signs, block * _WORDS)
    if whole < scales.size:
        rest = gradient.size - whole * BLOCK
        g, left, words = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32), np.empty(_WORDS, np.uint32)
        g[:rest], left[:rest] = gradient[whole * BLOCK :], residual[whole * BLOCK :]
        scale = np.float32(add_and_sum(g, left, 0, p) * (np.float32(BLOCK) / np.float32(rest)))
        scales[whole] = scale
        subtract_signed(p, scale.view(np.uint32), left, 0, words, 0)
        residual[whole * BLOCK :] = left[:rest]
        signs[whole * _WORDS :] = words[: signs.size - whole * _WORDS]


@exact_kernel
def _decode(scales, signs, bits):  # type: ignore[no-untyped-def]
    for block in range(scales.size):
        scale = scales[block]
        # As whole numbers all that is not finite is larger, and all that has a sign.
        if scale >= _INFINITE:
            return block
        start, stop = block * BLOCK, min((block + 1) * BLOCK, bits.size)
        for line in range(start + AHEAD, stop + AHEAD, NUMBERS_OF_A_LINE):
            soon_written(bits, line)
        for place in range(start, stop - _BITS + 1, _BITS):
            write_signed(bits, place, scale, signs[place // _BITS])
        for place in range(stop - (stop - start) % _BITS, stop):
            word, bit = signs[place // _BITS], np.uint32(place % _BITS)
            bits[place] = scale | (np.uint32(word << np.uint32(_LAST - bit)) & _SIGN)
    return -1
