"""The unit cube as the image of a standard normal: z = Phi(u), Phi the distribution function of N(0, 1).

    z_j = Phi(u_j) = erfc(-u_j / sqrt 2) / 2            uniform on (0, 1) where u is standard normal
    dL/du_j = dL/dz_j exp(-u_j^2 / 2) / sqrt(2 pi)

An invertible map leaves a divergence as it is, so KL(q(z|x) || uniform) = KL(q(u|x) || N(0, 1)).
"""

import math

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn.arrays import Floats

__all__ = ["to_cube", "to_cube_backward"]

_SQRT_HALF = math.sqrt(0.5)
_DENSITY_AT_ZERO = 1 / math.sqrt(2 * math.pi)


def to_cube(u: Floats, z: Floats) -> None:
    """Overwrite `z` (rows, latent) with Phi(u)."""
    _to_cube(u, z)


def to_cube_backward(u: Floats, d_z: Floats) -> None:
    """From the gradient with respect to z to that with respect to u, in place."""
    _to_cube_backward(u, d_z)


@kernel
def _to_cube(u: Floats, z: Floats) -> None:
    for i in range(u.shape[0]):
        for j in range(u.shape[1]):
            z[i, j] = 0.5 * math.erfc(-_SQRT_HALF * np.float64(u[i, j]))


@kernel
def _to_cube_backward(u: Floats, d_z: Floats) -> None:
    for i in range(u.shape[0]):
        for j in range(u.shape[1]):
            at = np.float64(u[i, j])
            d_z[i, j] *= u.dtype.type(_DENSITY_AT_ZERO * math.exp(-0.5 * at * at))
