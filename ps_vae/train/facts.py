"""An update that leaves facts of the data alone: what a codec makes of their zero gradients is not always zero."""

import math

import numpy as np
import numpy.typing as npt

from ps_vae.ps.partition import Slice
from ps_vae.ps.update import Moment, Update
from ps_vae.vae.layout import ParameterLayout

__all__ = ["keeping_facts"]

Vector = npt.NDArray[np.float32]


def keeping_facts(update: Update, layout: ParameterLayout, piece: Slice) -> Update:
    """The update of a slice of the vector, but for the tensors that nobody learns (`ParameterLayout.facts`)."""
    ends = [(tensor.offset, tensor.offset + math.prod(tensor.shape)) for tensor in layout.facts()]
    inside = [(max(start, piece.start), min(stop, piece.stop)) for start, stop in ends]
    facts = [slice(start - piece.start, stop - piece.start) for start, stop in inside if start < stop]
    if not facts:
        return update

    def keeping(
        weights: Vector, parts: tuple[Vector, ...], state: dict[str, Vector], moment: Moment, out: Vector
    ) -> None:
        kept = [weights[fact].copy() for fact in facts]
        update(weights, parts, state, moment, out)
        for fact, values in zip(facts, kept, strict=True):
            out[fact] = values

    return keeping
