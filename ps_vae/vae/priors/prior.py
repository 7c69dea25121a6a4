"""What a prior has to offer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy.typing as npt

from ps_vae.nn.arrays import Array, Floats, Sums

__all__ = ["Prior", "PriorTerms"]


class PriorTerms(Protocol):
    """The prior's part of one pass, with the arrays that it writes to. One pass at a time."""

    def prepare(self, own: tuple[Floats, ...]) -> None:
        """Take the prior's parameters, once a pass, before anything else; what is encoded beside the batch is there."""

    def log_density(self, u: Floats, log_density: Sums) -> None:
        """Overwrite `log_density` (rows,) with log p(u), in nats, of each row of `u` (rows, latent)."""

    def gradient(self, u: Floats, weight: Sums, log_density: Sums, d_u: Floats, d_own: tuple[Floats, ...]) -> None:
        """Of -sum over rows of weight log p(u): added to `d_u`; `d_own` is overwritten, but for what is encoded, whose
        gradient goes to where it was encoded. `log_density` (rows,) is overwritten, too.
        """


@dataclass(frozen=True, slots=True)
class Prior:
    """p(z), by a density of u, the coordinates in which the posterior is Gaussian, and the map from u to z.

    own           names and shapes of the parameters that are learned
    beside        so many rows, the first of `own`, are encoded beside the batch, and what comes out belongs to `terms`
    is_standard   u is standard normal: the divergence of a Gaussian posterior has a closed form
    to_z, to_z_backward
                  (u, z) and (u, d_z), as in `ps_vae.nn.cube`; None where z is u
    terms(dtype, encoded, d_encoded)
                  a PriorTerms; the two are (beside, 2 latent)
    initial(seed, index, examples)
                  values of `own` to begin with, float32; index counts the model's tensors up to the first of them;
                  examples (beside, inputs) of the training data, or anything like them
    sample(own, encoded, count, seed)
                  u (count, latent) drawn with the noise of stream PRIOR
    """

    name: str
    own: tuple[tuple[str, tuple[int, ...]], ...]
    beside: int
    is_standard: bool
    terms: Callable[[npt.DTypeLike, Array, Array], PriorTerms]
    initial: Callable[[int, int, Floats], tuple[Floats, ...]]
    sample: Callable[[tuple[Floats, ...], Floats, int, int], Floats]
    to_z: Callable[[Floats, Floats], None] | None = None
    to_z_backward: Callable[[Floats, Floats], None] | None = None
