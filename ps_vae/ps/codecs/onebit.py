"""onebit: the sign of each number, and for each 512 of them their mean magnitude; what that leaves out is sent later.

With p = gradient + residual, in float32, for each block of 512 numbers (the last may have fewer)

    scale = mean |p|,    decoded = -scale where p has its sign bit set, else scale,    residual <- p - decoded

EF-signSGD: Karimireddy, Rebjock, Stich & Jaggi, "Error feedback fixes SignSGD and other gradient compression schemes",
ICML 2019, algorithm 1 (the sign times ||p||_1 / d), for each block of d numbers, the learning rate left to the server.
Accuracy: for a block, |decoded - p|^2 = |p|^2 - d scale^2, which is less than |p|^2 unless p is zero; and nothing is
lost: what was sent and the residual add up to the gradients.

The mean: magnitudes times 2^-9, so that no sum overflows; those of a short block filled up with zeros to 512; the upper
half of them added to the lower, and so on down to one; where the block is short, times 512 / count.

Words: the scales as float32, one a block, then the sign bits, 32 a word, the first lowest; bits that are left over are
zero: ceil(n / 512) + ceil(n / 32) words. A block with NaN or infinity in it has a scale that is not finite, and is
refused where it arrives; its residual is no number from then on.

State: `residual`, n numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ps_vae.errors import PeerError
from ps_vae.jit import exact_kernel
from ps_vae.ps.codecs.codec import Codec, Key, Matrix, State, Vector, Words, check_words

__all__ = ["onebit"]

_BLOCK, _BITS = 512, 32


def onebit(name: str, numbers: int, matrices: tuple[Matrix, ...]) -> Codec:
    """The codec for so many numbers, whatever they belong to."""
    blocks = -(-numbers // _BLOCK)
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
_PART = np.float32(1 / _BLOCK)
_ZERO = np.float32(0)


@exact_kernel
def _encode(gradient, residual, scales, signs):  # type: ignore[no-untyped-def]
    p = np.empty(_BLOCK, np.float32)
    bits = p.view(np.uint32)
    sums = np.empty(_BLOCK // 2, np.float32)
    for block in range(scales.size):
        start = block * _BLOCK
        g, left = gradient[start : start + _BLOCK], residual[start : start + _BLOCK]
        for i in range(g.size):
            p[i] = g[i] + left[i]
        p[g.size :] = _ZERO
        scale = np.float32(_mean_magnitude(p, sums, g.size))
        scales[block] = scale
        magnitude = scale.view(np.uint32)
        for i in range(g.size):
            sent = np.uint32(magnitude | (bits[i] & _SIGN))
            left[i] = p[i] - sent.view(np.float32)
        for word in range((g.size + _BITS - 1) // _BITS):
            signs[start // _BITS + word] = _sign_bits(bits, word * _BITS)


@exact_kernel
def _mean_magnitude(p, sums, count):  # type: ignore[no-untyped-def]
    half = sums.size
    for i in range(half):
        sums[i] = abs(p[i]) * _PART + abs(p[half + i]) * _PART
    while half > 1:
        half //= 2
        for i in range(half):
            sums[i] += sums[half + i]
    return sums[0] if count == _BLOCK else sums[0] * (np.float32(_BLOCK) / np.float32(count))


@exact_kernel
def _decode(scales, signs, bits):  # type: ignore[no-untyped-def]
    for block in range(scales.size):
        scale = scales[block]
        # As whole numbers all that is not finite is larger, and all that has a sign.
        if scale >= _INFINITE:
            return block
        start = block * _BLOCK
        numbers = bits[start : start + _BLOCK]
        whole = numbers.size // _BITS
        for w in range(whole):
            _write_signed(numbers, w * _BITS, signs[start // _BITS + w], scale)
        for bit in range(numbers.size - whole * _BITS):
            word = signs[start // _BITS + whole]
            numbers[whole * _BITS + bit] = scale | (np.uint32(word << np.uint32(_LAST - np.uint32(bit))) & _SIGN)
    return -1


# What Numba is told of an intrinsic is not what a kernel calls it with: hence no signature.
_instruction: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic
_INT32, _FLAGS, _WORDS = ir.IntType(32), ir.VectorType(ir.IntType(1), _BITS), ir.VectorType(ir.IntType(32), _BITS)


@_instruction
def _sign_bits(typing: Any, bits: Any, first: Any) -> Any:
    """The uppermost bits of 32 words from `first` on, as one word: a few instructions where a loop has a hundred."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words = builder.load(_words_from(context, builder, signature, arguments), align=4)
        return builder.bitcast(builder.icmp_signed("<", words, ir.Constant(_WORDS, None)), _INT32)

    return types.uint32(bits, types.intp), emit


@_instruction
def _write_signed(typing: Any, bits: Any, first: Any, signs: Any, magnitude: Any) -> Any:
    """Write 32 times the same magnitude, from `first` on, under the signs that are the bits of one word."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *_, signs, magnitude = arguments
        negative = builder.or_(magnitude, _INT32(0x80000000))
        chosen = builder.select(
            builder.bitcast(signs, _FLAGS), _everywhere(builder, negative), _everywhere(builder, magnitude)
        )
        builder.store(chosen, _words_from(context, builder, signature, arguments), align=4)
        return context.get_dummy_value()

    return types.void(bits, types.intp, types.uint32, types.uint32), emit


def _words_from(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Pointer to 32 words of the array that is the first argument, from the second on."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), _WORDS.as_pointer())


def _everywhere(builder: Any, word: Any) -> Any:
    nothing = ir.Constant(_WORDS, ir.Undefined)
    first = builder.insert_element(nothing, word, _INT32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_WORDS, [0] * _BITS))
