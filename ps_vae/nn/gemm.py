"""Matrix products in float32 in which every element is one chain of fused multiply-adds.

    out[i, j] = fma(a[i, k-1], b[k-1, j], ... fma(a[i, 1], b[1, j], fma(a[i, 0], b[0, j], 0)) ...)

The order is that of k, and each term rounds once. So the bits of an element follow from its row of a and its column of
b, and from nothing else: not from how many rows stand beside it, the width of a vector, the shape of a tile, where the
arrays lie, or who built a BLAS. The lanes of a vector are different elements, never parts of one sum; where k is cut
into blocks, a block goes on from what the one before has stored, and float32 holds that exactly.

Work goes tile by tile (module tile). A panel is what a tile needs of one operand, as wide as the tile and as long as k.

    product                    a b      lanes are columns: b is read where it lies, a at (i, k)
    product_left_transposed    a^T b    lanes are columns: the same, but a is read at (k, i)
    product_right_transposed   a b^T    lanes are rows: a tile of the output's transpose, b is read where it lies, and
                                        panels of a are transposed first. Of the two operands that is the small one
                                        in a layer: the batch, not the weights

An output that is narrower than a vector is computed with lanes for rows as well. A panel of b is copied, by the first
tile that reads it, only where that pays: many tiles follow, or its rows lie whole pages apart, where they would drive
one another out of the caches. Panels have a place on the stack: nothing is allocated.
"""

from typing import Any

from numba import carray  # type: ignore[attr-defined]

from ps_vae.errors import UsageError
from ps_vae.jit import exact_kernel
from ps_vae.nn.arrays import Floats
from ps_vae.nn.simd import LANES, at, scratch, start, transpose
from ps_vae.nn.tile import ACROSS, ALONG, COPYING, TILE_ROWS, TILE_VECTORS, tile

__all__ = ["product", "product_left_transposed", "product_right_transposed"]

_BLOCK = 512  # of k, so that a panel is 96 KiB at most
_WIDTH = TILE_VECTORS * LANES
_PANEL, _CORNER = _BLOCK * _WIDTH, TILE_ROWS * _WIDTH
_MANY_ROWS = 256
_PAGE = 1024  # numbers


def product(a: Floats, b: Floats, out: Floats) -> None:
    """Overwrite `out` (rows, columns) with `a` (rows, k) times `b` (k, columns).

    All are float32 and in C order; `out` shares no memory with the others. Raises UsageError where shapes do not fit.
    """
    if a.shape != (out.shape[0], b.shape[0]) or b.shape[1] != out.shape[1]:
        raise _misfit("a (rows, k), b (k, columns)", a, b, out)
    if out.shape[1] >= LANES:
        _along(a, b, out, False)
    else:
        _across(a, b, out, False, False)


def product_left_transposed(a: Floats, b: Floats, out: Floats) -> None:
    """Overwrite `out` (rows, columns) with the transpose of `a` (k, rows) times `b` (k, columns); else as `product`."""
    if a.shape != (b.shape[0], out.shape[0]) or b.shape[1] != out.shape[1]:
        raise _misfit("a (k, rows), b (k, columns)", a, b, out)
    if out.shape[1] >= LANES:
        _along(a, b, out, True)
    else:
        _across(a, b, out, True, False)


def product_right_transposed(a: Floats, b: Floats, out: Floats) -> None:
    """Overwrite `out` (rows, columns) with `a` (rows, k) times the transpose of `b` (columns, k); else as `product`."""
    if a.shape != (out.shape[0], b.shape[1]) or b.shape[0] != out.shape[1]:
        raise _misfit("a (rows, k), b (columns, k)", a, b, out)
    _across(a, b, out, False, True)


def _misfit(names: str, a: Floats, b: Floats, out: Floats) -> UsageError:
    return UsageError(f"{names} and out (rows, columns) are {a.shape}, {b.shape} and {out.shape}: make them agree")


@exact_kernel
def _along(a: Floats, b: Floats, out: Floats, left_transposed: bool) -> None:
    """Lanes are columns of `out`, of which there are at least LANES."""
    rows, columns = out.shape
    terms = b.shape[0]
    if terms == 0:
        out[:] = 0
        return
    a_row, a_step = (1, rows) if left_transposed else (terms, 1)
    a_start, b_start, c_start, panel = start(a), start(b), start(out), scratch(_PANEL)
    copies = rows >= _MANY_ROWS or (columns % _PAGE == 0 and rows > 4 * TILE_ROWS)
    depth = _depth(terms) if copies else terms
    j = 0
    while j < columns:
        vectors = _vectors(columns - j)
        following = min(j + vectors * LANES, columns)
        # The last vector may begin earlier and overlap: what is there is computed twice, the same way.
        last = following - LANES - j
        for k in range(0, terms, depth):
            count = min(depth, terms - k)
            b_here, b_step, b_last = at(b_start, k * columns + j), columns, last
            for i in range(0, rows, TILE_ROWS):
                a_here, c_here = at(a_start, i * a_row + k * a_step), at(c_start, i * columns + j)
                present = min(TILE_ROWS, rows - i)
                if copies and i == 0:
                    tile(
                        COPYING, vectors, a_here, a_row, a_step, b_here, b_step, b_last, c_here, columns, last,
                        panel, count, present, k > 0,
                    )  # fmt: skip
                    b_here, b_step, b_last = panel, vectors * LANES, (vectors - 1) * LANES
                else:
                    tile(
                        ALONG, vectors, a_here, a_row, a_step, b_here, b_step, b_last, c_here, columns, last,
                        panel, count, present, k > 0,
                    )  # fmt: skip
        j = following


@exact_kernel
def _across(a: Floats, b: Floats, out: Floats, left_transposed: bool, right_transposed: bool) -> None:
    """Lanes are rows of `out`, and rows of the tile its columns; fewer columns than a tile's take a place beside."""
    rows, columns = out.shape
    terms = b.shape[1] if right_transposed else b.shape[0]
    if terms == 0:
        out[:] = 0
        return
    b_row, b_step = (terms, 1) if right_transposed else (1, columns)
    a_start, b_start, c_start = start(a), start(b), start(out)
    panel, beside = scratch(_PANEL), scratch(_CORNER)
    corner = carray(beside, (_WIDTH, TILE_ROWS))
    depth = _depth(terms)
    whole = columns - columns % TILE_ROWS
    i = 0
    while i < rows:
        vectors = _vectors(rows - i)
        width = vectors * LANES
        lanes = min(width, rows - i)
        for k in range(0, terms, depth):
            count = min(depth, terms - k)
            if left_transposed:
                _copy_rows(at(a_start, k * rows + i), rows, count, lanes, panel, width)
            else:
                _copy_transposed(at(a_start, i * terms + k), terms, count, lanes, panel, width)
            for j in range(0, whole, TILE_ROWS):
                tile(
                    ACROSS, vectors, at(b_start, j * b_row + k * b_step), b_row, b_step, panel, width, width - LANES,
                    at(c_start, i * columns + j), columns, lanes, panel, count, TILE_ROWS, k > 0,
                )  # fmt: skip
            if whole < columns:
                tile(
                    ACROSS, vectors, at(b_start, whole * b_row + k * b_step), b_row, b_step, panel, width,
                    width - LANES, beside, TILE_ROWS, width, panel, count, columns - whole, k > 0,
                )  # fmt: skip
        for lane in range(lanes):
            for j in range(whole, columns):
                out[i + lane, j] = corner[lane, j - whole]
        i += width


@exact_kernel
def _vectors(left: int) -> int:
    """How many vectors the next panel has: three, or two where three would leave a single one."""
    vectors = (left + LANES - 1) // LANES
    return 2 if vectors == TILE_VECTORS + 1 else min(vectors, TILE_VECTORS)


@exact_kernel
def _depth(terms: int) -> int:
    """Of blocks of equal size, as few as have to be."""
    blocks = (terms + _BLOCK - 1) // _BLOCK
    return (terms + blocks - 1) // blocks


@exact_kernel
def _copy_rows(source: Any, row: int, count: int, lanes: int, panel: Any, width: int) -> None:
    """panel[k, lane] = source[k, lane]; the last lane stands for those that do not exist."""
    numbers, copy = carray(source, (count * row,)), carray(panel, (count, width))
    for k in range(count):
        for lane in range(lanes):
            copy[k, lane] = numbers[k * row + lane]
        for lane in range(lanes, width):
            copy[k, lane] = numbers[k * row + lanes - 1]


@exact_kernel
def _copy_transposed(source: Any, row: int, count: int, lanes: int, panel: Any, width: int) -> None:
    """panel[k, lane] = source[lane, k]; the last lane stands for those that do not exist."""
    if count < LANES:
        numbers, copy = carray(source, (lanes * row,)), carray(panel, (count, width))
        for lane in range(width):
            for k in range(count):
                copy[k, lane] = numbers[min(lane, lanes - 1) * row + k]
        return
    for lane in range(0, width, LANES):
        for k in range(0, count, LANES):
            # The last square overlaps the one before.
            here = min(k, count - LANES)
            square = at(panel, here * width + lane)
            transpose(at(source, lane * row + here), row, min(LANES, lanes - lane), square, width)
