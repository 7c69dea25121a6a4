"""Sums of products of float32 in an order of their own, whatever the width of a machine's vectors: for exact kernels.

    blocks of 16 products, in turns of four: of a turn the first goes to sum 0, ..., the fourth to sum 3, each a vector
    of 16; the up to three blocks that make no turn go to sum 0. Then (sum 0 + sum 1) + (sum 2 + sum 3), of that vector
    the upper half to the lower, and again, down to one number, to which the up to 15 products that make no block are
    added one by one.

LLVM may not reorder a sum, so a loop that sums up one number does not become vector instructions; and an array of
partial sums it keeps in memory. Hence an intrinsic, which is two to three times as fast.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from ps_vae.jit import exact_kernel, instruction

__all__ = ["dot"]

_LANES, _SUMS = 16, 4


@exact_kernel
def dot(a, i, b, k):  # type: ignore[no-untyped-def]
    """Row i of `a` times row k of `b`: float32 matrices in C order with equally many columns."""
    columns = a.shape[1]
    blocks = columns // _LANES
    total = _dot_of_blocks(a, i, b, k, blocks)
    for j in range(blocks * _LANES, columns):
        total += a[i, j] * b[k, j]
    return total


_FLOAT, _INT, _INDEX = ir.FloatType(), ir.IntType(32), cgutils.intp_t
_VECTOR = ir.VectorType(_FLOAT, _LANES)
_ZEROS = ir.Constant(_VECTOR, [0.0] * _LANES)


@instruction
def _dot_of_blocks(typing: Any, a: Any, i: Any, b: Any, k: Any, blocks: Any) -> Any:
    if any(array.dtype != types.float32 or array.layout != "C" or array.ndim != 2 for array in (a, b)):
        return None

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, i, b, k, blocks = arguments
        left = _row(context, builder, signature.args[0], a, i)
        right = _row(context, builder, signature.args[2], b, k)
        sums = [_place(builder) for _ in range(_SUMS)]

        def add(place: Any, block: Any) -> None:
            x, y = (builder.load(builder.gep(row, [block]), align=4) for row in (left, right))
            builder.store(builder.fadd(builder.load(place), builder.fmul(x, y)), place)

        turns = builder.sdiv(blocks, _INDEX(_SUMS))
        first_of_rest = builder.mul(turns, _INDEX(_SUMS))
        with cgutils.for_range(builder, turns) as loop:
            first = builder.mul(loop.index, _INDEX(_SUMS))
            for number, place in enumerate(sums):
                add(place, builder.add(first, _INDEX(number)))
        with cgutils.for_range(builder, builder.sub(blocks, first_of_rest)) as loop:
            add(sums[0], builder.add(first_of_rest, loop.index))
        return _folded(builder, [builder.load(place) for place in sums])

    return types.float32(a, types.intp, b, types.intp, types.intp), emit


def _place(builder: Any) -> Any:
    """Of a vector on the stack, zero from here on; LLVM makes a register of it."""
    with builder.goto_entry_block():
        place = builder.alloca(_VECTOR)
    builder.store(_ZEROS, place)
    return place


def _row(context: Any, builder: Any, array_type: Any, array: Any, row: Any) -> Any:
    """Pointer to the vectors of a row."""
    given = context.make_array(array_type)(context, builder, array)
    columns = builder.extract_value(given.shape, 1)
    return builder.bitcast(builder.gep(given.data, [builder.mul(row, columns)]), _VECTOR.as_pointer())


def _folded(builder: Any, sums: list[Any]) -> Any:
    """The four sums as one number."""
    total = builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))
    half = _LANES // 2
    while half:
        places = ir.VectorType(_INT, half)
        low = builder.shuffle_vector(total, total, ir.Constant(places, list(range(half))))
        high = builder.shuffle_vector(total, total, ir.Constant(places, list(range(half, 2 * half))))
        total = builder.fadd(low, high)
        half //= 2
    return builder.extract_element(total, _INT(0))
