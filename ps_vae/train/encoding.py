"""Which codecs a run's pushes and pulls have, and what a shard's slice looks like to them."""

from collections.abc import Sequence

from ps_vae.nn.dense import weight_gradient
from ps_vae.ps.codecs.codec import BlockCodec, Matrix
from ps_vae.ps.codecs.factors import Products
from ps_vae.ps.codecs.pull import PullCodec, pull_codec_for
from ps_vae.ps.codecs.table import push_codec_for
from ps_vae.ps.partition import Slice
from ps_vae.train.config import RunConfig
from ps_vae.vae.layout import ParameterLayout

__all__ = ["matrices_in", "pull_codecs", "push_codecs"]


def push_codecs(config: RunConfig, slices: Sequence[Slice]) -> list[BlockCodec]:
    """One for each slice; none at all where gradients are pushed as they are."""
    make = push_codec_for(config.push_codec)
    if make is None:
        return []
    layout, products = ParameterLayout(config.model), Products(config.microbatch, weight_gradient)
    return [make(piece.size, matrices_in(layout, piece), products) for piece in slices]


def pull_codecs(config: RunConfig, slices: Sequence[Slice]) -> list[PullCodec]:
    """One for each slice; none at all where weights are sent as they are."""
    make = pull_codec_for(config.pull_codec)
    if make is None:
        return []
    layout = ParameterLayout(config.model)
    return [make(piece.size, matrices_in(layout, piece), config.seed) for piece in slices]


def matrices_in(layout: ParameterLayout, piece: Slice) -> tuple[Matrix, ...]:
    """The weights of layers that lie in a slice, or as many whole rows of them as do."""
    found = []
    for tensor in layout:
        if not tensor.is_weight:
            continue
        rows, columns = tensor.shape
        first = max(0, -(-(piece.start - tensor.offset) // columns))
        last = min(rows, (piece.stop - tensor.offset) // columns)
        if first < last:
            found.append(Matrix(tensor.offset + first * columns - piece.start, last - first, columns))
    return tuple(found)
