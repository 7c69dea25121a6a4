"""The density of a mixture of diagonal Gaussians, and its gradient.

Components are in the form of a posterior, (components, 2 latent): means, then log-variances v.

    log N_c   = -1/2 sum_j ((u_j - m_cj)^2 exp(-v_cj) + v_cj + log(2 pi))
    log p(u)  = log sum_c pi_c N_c
    r_c       = pi_c N_c / p(u)                                       what component c is responsible for
    d/du_j    = -sum_c r_c (u_j - m_cj) exp(-v_cj)
    d/dm_cj   = r_c (u_j - m_cj) exp(-v_cj)
    d/dv_cj   = r_c ((u_j - m_cj)^2 exp(-v_cj) - 1) / 2
    d/dlog pi_c = r_c
"""

import math

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn.arrays import Floats, Sums
from ps_vae.nn.elementary import exp

__all__ = ["log_mixture", "log_mixture_gradient"]

_LOG_2_PI = math.log(2 * math.pi)


def log_mixture(u: Floats, components: Floats, log_pi: Sums, log_density: Sums) -> None:
    """Overwrite `log_density` (rows,) with log p of each row of `u` (rows, latent); `log_pi` (components,)."""
    _log_mixture(u, components, log_pi, log_density)


def log_mixture_gradient(
    u: Floats,
    components: Floats,
    log_pi: Sums,
    weight: Sums,
    log_density: Sums,
    d_u: Floats,
    d_components: Floats,
    d_log_pi: Sums,
) -> None:
    """The gradient of -sum over rows of weight log p(u).

    weight         (rows,)
    log_density    (rows,), overwritten
    d_u            like u, added to
    d_components, d_log_pi
                   like components and log_pi, overwritten
    """
    _log_mixture_gradient(u, components, log_pi, weight, log_density, d_u, d_components, d_log_pi)


@kernel
def _prepare(components: Floats, log_pi: Sums) -> tuple[Floats, Sums]:
    """exp(-v), (components, latent), and log pi_c - 1/2 sum_j (v_cj + log(2 pi))."""
    latent = components.shape[1] // 2
    precision = np.empty((components.shape[0], latent), components.dtype)
    heights = np.empty(components.shape[0])
    for c in range(components.shape[0]):
        volume = 0.0
        for j in range(latent):
            precision[c, j] = exp(-components[c, latent + j])
            volume += components[c, latent + j] + _LOG_2_PI
        heights[c] = log_pi[c] - 0.5 * volume
    return precision, heights


@kernel
def _log_terms(u: Floats, components: Floats, precision: Floats, heights: Sums, terms: Sums) -> float:
    """`terms` (components,) become r_c; log p(u) of one u (latent,) is returned."""
    top = -np.inf
    for c in range(components.shape[0]):
        squares = u.dtype.type(0)
        for j in range(u.size):
            difference = u[j] - components[c, j]
            squares += difference * difference * precision[c, j]
        terms[c] = heights[c] - 0.5 * squares
        top = max(top, terms[c])
    if top == -np.inf:
        # Too far from all of them for float32: no component is nearer than another.
        nothing = 0.0
        for c in range(terms.size):
            # -inf, or NaN where one is.
            nothing += terms[c]
            terms[c] = 1.0 / terms.size
        return nothing
    total = 0.0
    for c in range(terms.size):
        terms[c] = math.exp(terms[c] - top)
        total += terms[c]
    for c in range(terms.size):
        terms[c] /= total
    return top + math.log(total)


@kernel
def _log_mixture(u: Floats, components: Floats, log_pi: Sums, log_density: Sums) -> None:
    precision, heights = _prepare(components, log_pi)
    terms = np.empty(components.shape[0])
    for i in range(u.shape[0]):
        log_density[i] = _log_terms(u[i], components, precision, heights, terms)


@kernel
def _log_mixture_gradient(
    u: Floats,
    components: Floats,
    log_pi: Sums,
    weight: Sums,
    log_density: Sums,
    d_u: Floats,
    d_components: Floats,
    d_log_pi: Sums,
) -> None:
    number = u.dtype.type
    latent = u.shape[1]
    half = number(0.5)
    precision, heights = _prepare(components, log_pi)
    responsibilities = np.empty(components.shape[0])
    d_components[:] = 0
    d_log_pi[:] = 0
    for i in range(u.shape[0]):
        log_density[i] = _log_terms(u[i], components, precision, heights, responsibilities)
        for c in range(components.shape[0]):
            d_log_pi[c] -= weight[i] * responsibilities[c]
            share = number(weight[i] * responsibilities[c])
            for j in range(latent):
                difference = u[i, j] - components[c, j]
                scaled = difference * precision[c, j]
                d_u[i, j] += share * scaled
                d_components[c, j] -= share * scaled
                d_components[c, latent + j] += share * (half - half * difference * scaled)
