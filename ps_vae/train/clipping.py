"""Gradients that are too long are shortened: g <- g min(1, C / |g|), g the mean gradient of a microbatch's examples.

Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1, with the
microbatch in the place of the step. The whole vector is known to the worker alone, for shards own slices; and what is
clipped there, before anything is summed, is a function of the weights and the microbatch's name: the bits of a step
depend neither on who computes what nor on the number of shards. A step's mean gradient is no longer than C then either.
"""

import math

import numpy as np
import numpy.typing as npt

from ps_vae.jit import kernel
from ps_vae.vae.layout import ParameterLayout

__all__ = ["clip"]

Vector = npt.NDArray[np.float32]


def clip(gradient: Vector, layout: ParameterLayout, limit: float) -> None:
    """Scale `gradient` in place to an L2 norm of at most `limit`, but for rounding; one that is not finite stays.

    gradient  (layout.size,) float32; what lies between tensors is left alone
    limit     above zero, in the units of `gradient`
    """
    tensors = [gradient[t.offset : t.offset + math.prod(t.shape)] for t in layout]
    norm = math.sqrt(sum(_sum_of_squares(tensor) for tensor in tensors))
    if not limit < norm < math.inf:
        return
    scale = np.float32(limit / norm)
    for tensor in tensors:
        np.multiply(tensor, scale, out=tensor)


@kernel
def _sum_of_squares(vector):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(vector.size):
        value = np.float64(vector[i])
        total += value * value
    return total
