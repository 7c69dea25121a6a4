"""Vector instructions for kernels: what Numba's language has no words for, as intrinsics that emit LLVM's vector types.

How wide a vector is follows from the instructions that Numba compiles for (NUMBA_CPU_FEATURES, or the machine's own):

    instructions             lanes   registers
    AVX-512                  16      32
    AVX2 with FMA            8       16
    NEON (every 64-bit ARM)  4       32

Pointers are to float32 and count in them. Nothing here checks a bound: that is for whoever calls.
The first half is for kernels, the second for other intrinsics.
"""

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, codegen, config
from numba.extending import intrinsic

__all__ = [
    "FLOAT",
    "FUSED",
    "INDEX",
    "LANES",
    "POINTER",
    "REGISTERS",
    "VECTOR",
    "at",
    "everywhere",
    "instruction",
    "interleave",
    "load",
    "row_pointers",
    "scratch",
    "separate",
    "shuffle",
    "start",
    "store",
    "transpose",
]


def _machine() -> tuple[int, int, bool]:
    if platform.machine() not in ("x86_64", "AMD64"):
        return 4, 32, True
    named = config.CPU_FEATURES  # type: ignore[attr-defined]
    host: str = codegen.get_host_cpu_features()  # type: ignore[no-untyped-call]
    features = set((host if named is None else named).split(","))
    if "+avx512f" in features:
        return 16, 32, True
    return 8, 16, {"+avx2", "+fma"} <= features


# FUSED: the machine multiplies and adds with one rounding; without, LLVM would call a function for each number.
LANES, REGISTERS, FUSED = _machine()

FLOAT, INDEX, INT32 = ir.FloatType(), cgutils.intp_t, ir.IntType(32)
VECTOR = ir.VectorType(FLOAT, LANES)
POINTER = types.CPointer(types.float32)  # type: ignore[no-untyped-call]

Function = Callable[..., Any]
# What Numba is told of an intrinsic (typing, arguments' types) is not what a kernel calls it with: hence no signature.
instruction: Callable[[Function], Function] = intrinsic(prefer_literal=True)


@instruction
def start(typing: Any, array: Any) -> Any:
    """Pointer to the first number of a float32 array in C order."""
    if array.dtype != types.float32 or array.layout != "C":
        return None

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return POINTER(array), emit


@instruction
def at(typing: Any, pointer: Any, offset: Any) -> Any:
    """`pointer` moved on by `offset` numbers."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return POINTER(POINTER, types.intp), emit


@instruction
def scratch(typing: Any, size: Any) -> Any:
    """Pointer to `size` numbers, a constant, from a 64-byte boundary on: on the stack until the kernel returns."""
    if not isinstance(size, types.IntegerLiteral):
        return None

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # Not cgutils.alloca_once, which fills the place with zeros.
        with builder.goto_entry_block():
            memory = builder.alloca(ir.ArrayType(FLOAT, size.literal_value))
        memory.align = 64
        return builder.bitcast(memory, FLOAT.as_pointer())

    return POINTER(size), emit


@instruction
def transpose(typing: Any, source: Any, source_row: Any, rows: Any, target: Any, target_row: Any) -> Any:
    """Write LANES x LANES numbers, in rows `source_row` apart, to `target` transposed, in rows `target_row` apart.

    Only the first `rows` rows are read; the last of them stands for those that are missing.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, source_row, rows, target, target_row = arguments
        vectors = [load(builder, row) for row in row_pointers(builder, source, source_row, rows, LANES)]
        for k, vector in enumerate(interleave(builder, vectors)):
            store(builder, vector, builder.gep(target, [builder.mul(INDEX(k), target_row)]))
        return context.get_dummy_value()

    return types.void(POINTER, types.intp, types.intp, POINTER, types.intp), emit


def load(builder: Any, pointer: Any, lanes: int = LANES) -> Any:
    """The `lanes` numbers from `pointer` on, whatever its alignment."""
    return builder.load(builder.bitcast(pointer, ir.VectorType(FLOAT, lanes).as_pointer()), align=4)


def store(builder: Any, vector: Any, pointer: Any) -> None:
    """The reverse of `load`."""
    builder.store(vector, builder.bitcast(pointer, vector.type.as_pointer()), align=4)


def row_pointers(builder: Any, pointer: Any, row: Any, rows: Any, count: int) -> list[Any]:
    """`count` pointers `row` apart; beyond the first `rows` (at least 1) the last of these again."""
    pointers = [pointer]
    for r in range(1, count):
        exists = builder.icmp_signed("<", INDEX(r), rows)
        pointers.append(builder.gep(pointers[-1], [builder.select(exists, row, INDEX(0))]))
    return pointers


def everywhere(builder: Any, pointer: Any) -> Any:
    """The number at `pointer` in all lanes."""
    nothing = ir.Constant(VECTOR, ir.Undefined)
    return shuffle(
        builder, builder.insert_element(nothing, builder.load(pointer, align=4), INT32(0)), nothing, [0] * LANES
    )


def shuffle(builder: Any, first: Any, second: Any, places: list[int]) -> Any:
    """The numbers at `places` of `first` and `second` laid end to end."""
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(INT32, len(places)), places))


def interleave(builder: Any, vectors: list[Any]) -> list[Any]:
    """The transpose of the matrix whose rows are `vectors`, as equally many vectors that hold it row after row.

    Lay the vectors end to end: a number's place is its row, then its column, in binary. Zipping the first half with
    the second moves the highest bit of every place to the end; done for each bit of the row, the column comes first.
    """
    half = len(vectors) // 2
    low = [place for i in range(LANES // 2) for place in (i, LANES + i)]
    high = [place + LANES // 2 for place in low]
    for _ in range(half.bit_length()):
        vectors = [shuffle(builder, vectors[i], vectors[half + i], part) for i in range(half) for part in (low, high)]
    return vectors


def separate(builder: Any, vectors: list[Any]) -> list[Any]:
    """The reverse of `interleave`."""
    half = len(vectors) // 2
    even, odd = list(range(0, 2 * LANES, 2)), list(range(1, 2 * LANES, 2))
    for _ in range(half.bit_length()):
        vectors = [
            shuffle(builder, vectors[2 * i], vectors[2 * i + 1], part) for part in (even, odd) for i in range(half)
        ]
    return vectors
