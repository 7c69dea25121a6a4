"""What onebit does to 512 numbers at a time, as intrinsics for its kernels: few instructions where loops have many.

LLVM may not reorder a sum, and keeps partial sums that stand in an array in memory; and it does not see that the
uppermost bits of a vector are one instruction away. Nothing here checks a bound.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from ps_vae.jit import instruction

__all__ = ["BLOCK", "add_and_sum", "subtract_signed", "write_signed"]

BLOCK = 512
_SUMS, _BITS = 64, 32
_SIGN, _MAGNITUDE = 0x80000000, 0x7FFFFFFF

_FLOAT, _INT, _INDEX, _FLAG = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(1)


@instruction
def add_and_sum(typing: Any, gradient: Any, residual: Any, start: Any, p: Any) -> Any:
    """p[i] = gradient[start + i] + residual[start + i]; returns the sum of |p[i]| / 512, in onebit's order."""
    floats, ints = ir.VectorType(_FLOAT, _SUMS), ir.VectorType(_INT, _SUMS)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = arguments[2]
        pointer = _pointers(context, builder, signature, arguments)
        total = None
        for first in range(0, BLOCK, _SUMS):
            place = builder.add(start, _INDEX(first))
            gradient, residual = (builder.load(pointer(array, place, floats), align=4) for array in (0, 1))
            numbers = builder.fadd(gradient, residual)
            builder.store(numbers, pointer(3, _INDEX(first), floats), align=4)
            magnitudes = builder.and_(builder.bitcast(numbers, ints), _constant(ints, _MAGNITUDE))
            parts = builder.fmul(builder.bitcast(magnitudes, floats), _constant(floats, 1 / BLOCK))
            total = parts if total is None else builder.fadd(total, parts)
        return _folded(builder, total)

    return types.float32(gradient, residual, types.intp, p), emit


@instruction
def subtract_signed(typing: Any, p: Any, magnitude: Any, residual: Any, start: Any, signs: Any, word: Any) -> Any:
    """residual[start + i] = p[i] - magnitude under the sign of p[i]; signs[word + k] = the signs of p[32 k], ..."""
    floats, ints = ir.VectorType(_FLOAT, _BITS), ir.VectorType(_INT, _BITS)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, magnitude, _, start, _, word = arguments
        pointer = _pointers(context, builder, signature, arguments)
        everywhere = _everywhere(builder, magnitude)
        for first in range(0, BLOCK, _BITS):
            numbers = builder.load(pointer(0, _INDEX(first), floats), align=4)
            bits = builder.bitcast(numbers, ints)
            sent = builder.bitcast(builder.or_(everywhere, builder.and_(bits, _constant(ints, _SIGN))), floats)
            place = builder.add(start, _INDEX(first))
            builder.store(builder.fsub(numbers, sent), pointer(2, place, floats), align=4)
            negative = builder.bitcast(builder.icmp_signed("<", bits, _constant(ints, 0)), _INT)
            builder.store(negative, pointer(4, builder.add(word, _INDEX(first // _BITS)), _INT))
        return context.get_dummy_value()

    return types.void(p, types.uint32, residual, types.intp, signs, types.intp), emit


@instruction
def write_signed(typing: Any, bits: Any, start: Any, magnitude: Any, signs: Any) -> Any:
    """bits[start + i] = the magnitude under the sign that is bit i of `signs`, for i < 32."""
    words, flags = ir.VectorType(_INT, _BITS), ir.VectorType(_FLAG, _BITS)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, start, magnitude, signs = arguments
        negative = builder.or_(magnitude, _INT(_SIGN))
        choices = (_everywhere(builder, negative), _everywhere(builder, magnitude))
        chosen = builder.select(builder.bitcast(signs, flags), *choices)
        builder.store(chosen, _pointers(context, builder, signature, arguments)(0, start, words), align=4)
        return context.get_dummy_value()

    return types.void(bits, types.intp, types.uint32, types.uint32), emit


def _pointers(context: Any, builder: Any, signature: Any, arguments: Any) -> Callable[[int, Any, Any], Any]:
    """pointer(number of an argument that is an array, place in it, type of what stands there)."""

    def pointer(number: int, place: Any, kind: Any) -> Any:
        array = context.make_array(signature.args[number])(context, builder, arguments[number])
        return builder.bitcast(builder.gep(array.data, [place]), kind.as_pointer())

    return pointer


def _constant(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _everywhere(builder: Any, word: Any) -> Any:
    words = ir.VectorType(_INT, _BITS)
    first = builder.insert_element(ir.Constant(words, ir.Undefined), word, _INT(0))
    return builder.shuffle_vector(first, first, _constant(words, 0))


def _folded(builder: Any, total: Any) -> Any:
    """The upper half added to the lower, and again, down to one number."""
    half = _SUMS // 2
    while half:
        places = ir.VectorType(_INT, half)
        low, high = (
            builder.shuffle_vector(total, total, ir.Constant(places, list(range(first, first + half))))
            for first in (0, half)
        )
        total = builder.fadd(low, high)
        half //= 2
    return builder.extract_element(total, _INT(0))
