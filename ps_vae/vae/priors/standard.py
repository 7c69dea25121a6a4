"""The standard normal prior, and the uniform one on the unit cube, which is its image (see `ps_vae.nn.cube`)."""

from dataclasses import replace

import numpy as np

from ps_vae.nn.arrays import Floats, Sums
from ps_vae.nn.cube import to_cube, to_cube_backward
from ps_vae.nn.gaussian import log_standard_normal
from ps_vae.nn.noise import Stream, standard_normal
from ps_vae.vae.priors.prior import Prior

__all__ = ["normal", "uniform"]


class _Terms:
    """-log p(u) = 1/2 sum_j (u_j^2 + log(2 pi)); the gradient is u."""

    def prepare(self, own: tuple[Floats, ...]) -> None:
        """Nothing is learned."""

    def log_density(self, u: Floats, log_density: Sums) -> None:
        log_standard_normal(u, log_density)

    def gradient(self, u: Floats, weight: Sums, log_density: Sums, d_u: Floats, d_own: tuple[Floats, ...]) -> None:
        log_standard_normal(u, log_density)
        d_u += weight.astype(u.dtype)[:, None] * u


def normal(inputs: int, latent: int) -> Prior:
    """z standard normal."""

    def sample(own: tuple[Floats, ...], encoded: Floats, count: int, seed: int) -> Floats:
        u = np.empty((count, latent), encoded.dtype)
        standard_normal(u, seed=seed, stream=Stream.PRIOR, step=0, rows=np.arange(count, dtype=np.int64))
        return u

    return Prior(
        name="normal",
        own=(),
        beside=0,
        is_standard=True,
        terms=lambda dtype, encoded, d_encoded: _Terms(),
        initial=lambda seed, index, examples: (),
        sample=sample,
    )


def uniform(inputs: int, latent: int) -> Prior:
    """z uniform on the unit cube."""
    return replace(normal(inputs, latent), name="uniform", to_z=to_cube, to_z_backward=to_cube_backward)
