"""What a worker writes into the vector of a block's gradient: the gradient, or for some layers its factors.

With the codec `factors` the place of a matrix begins with its factors, where they are smaller (ps.codecs.factors), and
the worker does not multiply them. A layer's weights may be cut by slices: each slice has the factors of its whole rows,
with a copy of the d_outputs, and rows that are cut, or that are too few to be worth it, are multiplied as ever.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from ps_vae.ps.codecs.codec import Matrix
from ps_vae.ps.codecs.factors import Factors, to_factor
from ps_vae.ps.codecs.matrices import outside
from ps_vae.ps.partition import Slice
from ps_vae.train.config import RunConfig
from ps_vae.train.encoding import matrices_in
from ps_vae.vae.layout import ParameterLayout

__all__ = ["FormOf", "GradientForm", "LayerFactors", "LayerRows", "factored_form", "whole_form"]


@dataclass(frozen=True, slots=True)
class LayerRows:
    """Rows first, …, stop - 1 of a layer's weights, of so many columns; in the vector from element `start` on."""

    layer: int
    first: int
    stop: int
    columns: int
    start: int


@dataclass(frozen=True, slots=True)
class LayerFactors:
    """Inputs first, …, first + rows - 1 of a layer and its d_outputs, and where in the vector they lie."""

    layer: int
    first: int
    factors: Factors


@dataclass(frozen=True, slots=True)
class GradientForm:
    """Of a block of some length. Layers are counted from the encoder's first to the likelihood's.

    sums     the parts of the vector that hold the gradient itself, summed over the block
    written  the parts that mean anything, in ascending order
    without  layers whose products are not computed but for
    rows     these rows of them
    factors  and these are written for each microbatch
    """

    sums: tuple[slice, ...]
    written: tuple[slice, ...]
    without: tuple[int, ...] = ()
    rows: tuple[LayerRows, ...] = ()
    factors: tuple[LayerFactors, ...] = ()


FormOf = Callable[[int], GradientForm]
"""The form for a block of so many microbatches."""


def whole_form(layout: ParameterLayout) -> FormOf:
    """The gradient and nothing else."""
    whole = (slice(0, layout.size),)
    form = GradientForm(whole, whole)
    return lambda microbatches: form


def factored_form(config: RunConfig, slices: Sequence[Slice]) -> FormOf:
    """As the codec `factors` reads it, with these slices."""
    layout = ParameterLayout(config.model)

    @cache
    def of_block(microbatches: int) -> GradientForm:
        return _factored(layout, slices, config.microbatch, microbatches)

    return of_block


def _factored(layout: ParameterLayout, slices: Sequence[Slice], r: int, microbatches: int) -> GradientForm:
    found = [
        Factors(_moved(each.matrix, piece.start), microbatches, r, piece.start + each.start)
        for piece in slices
        for each in to_factor(matrices_in(layout, piece), r, microbatches)
    ]
    factors: list[LayerFactors] = []
    rows: list[LayerRows] = []
    layers = [tensor for tensor in layout if tensor.is_weight]
    for layer, tensor in enumerate(layers):
        inputs, columns = tensor.shape
        end = tensor.offset + inputs * columns
        here = [each for each in found if tensor.offset <= each.start < end]
        factors += (LayerFactors(layer, (each.start - tensor.offset) // columns, each) for each in here)
        if here:
            own = [_moved(each.matrix, -tensor.offset) for each in here]
            left = outside(inputs * columns, own)
            rows += (
                LayerRows(layer, part.start // columns, part.stop // columns, columns, tensor.offset + part.start)
                for part in left
            )
    sums = outside(layout.size, [each.matrix for each in found])
    written = sorted([*sums, *(slice(each.start, each.start + each.size) for each in found)], key=lambda p: p.start)
    without = tuple(sorted({each.layer for each in factors}))
    return GradientForm(tuple(sums), tuple(written), without, tuple(rows), tuple(factors))


def _moved(matrix: Matrix, elements: int) -> Matrix:
    return Matrix(matrix.start + elements, matrix.rows, matrix.columns)
