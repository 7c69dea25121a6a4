"""Fetching memory before it is needed, as intrinsics for kernels.

A codec is called between two gradients, which leave little of its vectors in the caches next to the core. The machine
sees a walk through memory and fetches ahead of it, but stops at the end of each page of 4 KiB, and a core has few
stores that may wait for their line at once. A hint names a line of 64 bytes some thousand numbers ahead; one beyond the
end of an array, or of the memory, is no error and does nothing.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from ps_vae.jit import instruction

__all__ = ["AHEAD", "NUMBERS_OF_A_LINE", "soon_read", "soon_written"]

AHEAD = 1024
"""How many float32 to look ahead: 4 KiB, the time of a few lines from memory."""

NUMBERS_OF_A_LINE = 16

_BYTE, _INT = ir.IntType(8).as_pointer(), ir.IntType(32)
_READ, _WRITE, _KEEP, _DATA = (_INT(value) for value in (0, 1, 3, 1))


@instruction
def soon_read(typing: Any, array: Any, place: Any) -> Any:
    """The line with array[place] in it will be read."""
    return types.void(array, types.intp), _hint(_READ)


@instruction
def soon_written(typing: Any, array: Any, place: Any) -> Any:
    """The line with array[place] in it will be written."""
    return types.void(array, types.intp), _hint(_WRITE)


def _hint(purpose: Any) -> Callable[..., Any]:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        # Without `inbounds`: the address may be anywhere.
        line = builder.bitcast(builder.gep(data, [place]), _BYTE)
        prefetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [_BYTE], ir.FunctionType(ir.VoidType(), [_BYTE, _INT, _INT, _INT])
        )
        builder.call(prefetch, [line, purpose, _KEEP, _DATA])
        return context.get_dummy_value()

    return emit
