"""The innermost part of a matrix product: a tile of the output, in registers from its first term to its last.

    c[r, j] = fma(a[r, k], b[k, j], c[r, j])   for k = 0, 1, ...      r < TILE_ROWS, j < vectors * LANES

Each step k loads a row of the tile's width of b, as up to TILE_VECTORS vectors, and for each row of the tile one
number of a into all lanes: rows * vectors multiply-adds, on sums that do not wait for one another, for rows +
vectors loads. Eight rows of three vectors take 28 of 32 registers and more than cover the latency of two
multiply-adds a cycle; four rows take all 16 of AVX2. (Goto & van de Geijn 2008, section 6, on the choice.)

Where fewer rows exist, the last one is computed again in place of those that are missing, and written again to
where it belongs: that needs no other code, and changes nothing.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from ps_vae.nn.simd import (
    FLOAT,
    INDEX,
    LANES,
    POINTER,
    REGISTERS,
    VECTOR,
    everywhere,
    instruction,
    interleave,
    load,
    row_pointers,
    separate,
    shuffle,
    store,
)

__all__ = ["ACROSS", "ALONG", "COPYING", "TILE_ROWS", "TILE_VECTORS", "tile"]

TILE_ROWS = 8 if REGISTERS >= 32 else 4
TILE_VECTORS = 3

# Kinds of tile. ALONG: its rows are rows of the output.
#                COPYING: and what it loads of b is also written to `panel`, vector after vector.
#                ACROSS: its rows are columns of the output, of which it reads and writes TILE_ROWS.
ALONG, COPYING, ACROSS = 0, 1, 2


@instruction
def tile(
    typing: Any,
    kind: Any,
    vectors: Any,
    a: Any,
    a_row: Any,
    a_step: Any,
    b: Any,
    b_step: Any,
    b_last: Any,
    c: Any,
    c_row: Any,
    c_last: Any,
    panel: Any,
    depth: Any,
    rows: Any,
    resume: Any,
) -> Any:
    """Compute one tile of `vectors` vectors of the output, all of it or the next `depth` terms.

    kind               ALONG, COPYING or ACROSS, a constant
    a, a_row, a_step   a[r, k] is a[r * a_row + k * a_step]
    b, b_step, b_last  vector v of step k is at b[k * b_step + v * LANES], but the last one at b[k * b_step + b_last]
    c, c_row, c_last   vector v of row r is at c[r * c_row + v * LANES], but the last one at c[r * c_row + c_last];
                       ACROSS: lane j of row r is at c[j * c_row + r], and c_last is how many lanes exist
    panel              COPYING: where to write the vectors of b
    depth, rows        how many terms there are to add, and rows in a and c (ACROSS: in a); at least 1
    resume             go on from what c holds, otherwise from zero
    """
    if not isinstance(kind, types.IntegerLiteral):
        return None
    constant = kind.literal_value

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        after = builder.append_basic_block("after")
        choice = builder.switch(arguments[1], after)
        for count in range(1, TILE_VECTORS + 1):
            block = builder.append_basic_block("tile")
            choice.add_case(INDEX(count), block)
            with builder.goto_block(block):
                builder.call(_function(builder.module, constant, count), arguments[2:])
                builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    i, p = types.intp, POINTER
    return types.void(kind, i, p, i, i, p, i, i, p, i, i, p, i, i, types.boolean), emit


_FLOATS = FLOAT.as_pointer()
_SIGNATURE = ir.FunctionType(
    ir.VoidType(),
    [_FLOATS, INDEX, INDEX, _FLOATS, INDEX, INDEX, _FLOATS, INDEX, INDEX, _FLOATS, INDEX, INDEX, ir.IntType(1)],
)
_Tile = list[list[Any]]  # [row][vector]
_Access = tuple[Callable[[], _Tile], Callable[[_Tile], None]]


def _function(module: Any, kind: int, vectors: int) -> Any:
    """A function of its own: one copy of the code for all who call it, and all registers free for the loop."""
    name = f"ps_vae.tile.{kind}.{vectors}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, _SIGNATURE, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    a, a_row, a_step, b, b_step, b_last, c, c_row, c_last, panel, depth, rows, resume = function.args
    first, again, loop, end = (function.append_basic_block(word) for word in ("first", "again", "step", "end"))

    builder = ir.IRBuilder(first)
    a_rows = row_pointers(builder, a, a_row, rows, TILE_ROWS)
    if kind == ACROSS:
        read, write = _across(builder, c, c_row, c_last, vectors)
    else:
        read, write = _along(builder, c, c_row, c_last, rows, vectors)
    builder.cbranch(resume, again, loop)

    builder.position_at_end(again)
    resumed = read()
    builder.branch(loop)

    builder.position_at_end(loop)
    sums = [[builder.phi(VECTOR) for _ in range(vectors)] for _ in range(TILE_ROWS)]
    steps = [INDEX(1), a_step, b_step, INDEX(vectors * LANES)]
    offsets = [builder.phi(INDEX) for _ in steps]
    _, a_offset, b_offset, copied = offsets
    terms = [load(builder, pointer) for pointer in _vectors(builder, builder.gep(b, [b_offset]), b_last, vectors)]
    if kind == COPYING:
        for v, term in enumerate(terms):
            store(builder, term, builder.gep(panel, [builder.add(copied, INDEX(v * LANES))]))
    fma = _fma(module)
    added: _Tile = []
    for a_pointer, row in zip(a_rows, sums, strict=True):
        factor = everywhere(builder, builder.gep(a_pointer, [a_offset]))
        added.append([builder.call(fma, [factor, term, value]) for term, value in zip(terms, row, strict=True)])
    following = [builder.add(offset, step) for offset, step in zip(offsets, steps, strict=True)]
    builder.cbranch(builder.icmp_signed("<", following[0], depth), loop, end)
    _arrive(offsets, [INDEX(0)] * len(steps), first)
    _arrive(offsets, [INDEX(0)] * len(steps), again)
    _arrive(offsets, following, loop)
    for r in range(TILE_ROWS):
        _arrive(sums[r], [ir.Constant(VECTOR, None)] * vectors, first)
        _arrive(sums[r], resumed[r], again)
        _arrive(sums[r], added[r], loop)

    builder.position_at_end(end)
    write(added)
    builder.ret_void()
    return function


def _fma(module: Any) -> Any:
    kind, name = ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32"
    return cgutils.get_or_insert_function(module, kind, name)  # type: ignore[no-untyped-call]


def _arrive(variables: list[Any], values: list[Any], block: Any) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.add_incoming(value, block)


def _vectors(builder: Any, pointer: Any, last: Any, vectors: int) -> list[Any]:
    """Pointers to the vectors of one row."""
    offsets = [INDEX(v * LANES) for v in range(vectors - 1)] + [last]
    return [builder.gep(pointer, [offset]) for offset in offsets]


def _along(builder: Any, c: Any, c_row: Any, c_last: Any, rows: Any, vectors: int) -> _Access:
    """How to read and write a tile whose rows are rows of the output."""
    pointers = [_vectors(builder, row, c_last, vectors) for row in row_pointers(builder, c, c_row, rows, TILE_ROWS)]

    def read() -> _Tile:
        return [[load(builder, pointer) for pointer in row] for row in pointers]

    def write(tile: _Tile) -> None:
        for row, values in zip(pointers, tile, strict=True):
            for pointer, value in zip(row, values, strict=True):
                store(builder, value, pointer)

    return read, write


def _across(builder: Any, c: Any, c_row: Any, lanes: Any, vectors: int) -> _Access:
    """How to read and write a tile whose rows are columns of the output: a vector there is a piece of a row."""
    piece = min(TILE_ROWS, LANES)
    places = range(0, LANES, piece)  # of the pieces in a vector

    def pointers() -> list[list[list[Any]]]:
        """To each piece [v][i][place] of the TILE_ROWS vectors that vectors v of the tile become."""
        rows = row_pointers(builder, c, c_row, lanes, vectors * LANES)
        result = []
        for v in range(vectors):
            flat = range(v * LANES * TILE_ROWS, (v + 1) * LANES * TILE_ROWS, piece)
            pieces = [builder.gep(rows[f // TILE_ROWS], [INDEX(f % TILE_ROWS)]) for f in flat]
            result.append([pieces[i : i + len(places)] for i in range(0, len(pieces), len(places))])
        return result

    def read() -> _Tile:
        columns = []
        for vectors_read in pointers():
            whole = [_join(builder, [load(builder, p, piece) for p in pieces]) for pieces in vectors_read]
            columns.append(separate(builder, whole))
        return [list(row) for row in zip(*columns, strict=True)]

    def write(tile: _Tile) -> None:
        for v, vectors_written in enumerate(pointers()):
            for whole, pieces in zip(interleave(builder, [row[v] for row in tile]), vectors_written, strict=True):
                for place, pointer in zip(places, pieces, strict=True):
                    store(builder, shuffle(builder, whole, whole, list(range(place, place + piece))), pointer)

    return read, write


def _join(builder: Any, pieces: list[Any]) -> Any:
    while len(pieces) > 1:
        size = list(range(2 * pieces[0].type.count))
        pieces = [shuffle(builder, pieces[i], pieces[i + 1], size) for i in range(0, len(pieces), 2)]
    return pieces[0]
