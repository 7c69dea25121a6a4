"""Which of 32 numbers are large, as 32 bits: what Numba's language has no words for, as intrinsics for kernels.

    mask = not_below(bits, start, floor)
    while mask:
        i = start + lowest(mask)
        mask &= mask - 1

visits the few that are, in order, without a look at the others. Nothing here checks a bound.
"""

from typing import Any

from llvmlite import ir
from numba import types

from ps_vae.jit import instruction

__all__ = ["lowest", "not_below"]

_BIT, _WORD, _WORDS = ir.IntType(1), ir.IntType(32), ir.VectorType(ir.IntType(32), 32)
_MAGNITUDE = 0x7FFFFFFF


@instruction
def not_below(typing: Any, bits: Any, start: Any, floor: Any) -> Any:
    """uint32 whose bit i says whether bits[start + i], an int32 taken without its sign bit, is at least `floor`."""
    if bits.dtype != types.int32 or bits.layout != "C":
        return None

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, start, floor = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        pointer = builder.bitcast(builder.gep(data, [start]), _WORDS.as_pointer())
        magnitudes = builder.and_(builder.load(pointer, align=4), ir.Constant(_WORDS, [_MAGNITUDE] * 32))
        one = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), floor, _WORD(0))
        floors = builder.shuffle_vector(one, one, ir.Constant(_WORDS, [0] * 32))
        return builder.bitcast(builder.icmp_signed(">=", magnitudes, floors), _WORD)

    return types.uint32(bits, types.intp, types.int32), emit


@instruction
def lowest(typing: Any, mask: Any) -> Any:
    """The place of the lowest bit that is set, of at least one, as int64."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # The second argument: nothing is promised for a mask of zero.
        return builder.zext(builder.cttz(arguments[0], _BIT(1)), ir.IntType(64))

    return types.int64(types.uint32), emit
