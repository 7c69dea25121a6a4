"""Mixtures of diagonal Gaussians as priors: of Gaussians that are learned, and the VampPrior, of posteriors.

    mixture   p(u) = sum_c softmax(logits)_c N(u; mean_c, exp(b(v_c))),    b the bound of the posterior's log-variance
    vamp      p(u) = 1/K sum_c q(u | pseudo-input c)                       Tomczak & Welling (2018), equation 9

A vamp's pseudo-inputs are learned: they are rows that the encoder sees beside those of a batch, and begin as examples
of the training data. They are not kept within the data's range; what is best for the bound may lie outside.
"""

import math

import numpy as np
import numpy.typing as npt

from ps_vae.nn.arrays import Array, Floats, Sums
from ps_vae.nn.gaussian import bound_posterior, bound_posterior_backward
from ps_vae.nn.mixture import log_mixture, log_mixture_gradient
from ps_vae.nn.noise import Stream, standard_normal, uniform
from ps_vae.vae.priors.prior import Prior

__all__ = ["mixture", "vamp"]


class _Terms:
    """Of components (count, 2 latent) that somebody else fills in, with equal shares."""

    def __init__(self, components: Array, d_components: Array) -> None:
        self.components, self._d_components = components, d_components
        self.log_pi = np.full(len(components), -math.log(max(1, len(components))))
        self._d_log_pi = np.zeros(len(components))

    def prepare(self, own: tuple[Floats, ...]) -> None:
        """The encoder has written the components."""

    def log_density(self, u: Floats, log_density: Sums) -> None:
        log_mixture(u, self.components, self.log_pi, log_density)

    def gradient(self, u: Floats, weight: Sums, log_density: Sums, d_u: Floats, d_own: tuple[Floats, ...]) -> None:
        log_mixture_gradient(
            u, self.components, self.log_pi, weight, log_density, d_u, self._d_components, self._d_log_pi
        )


class _LearnedTerms(_Terms):
    """Of components and logits that are parameters."""

    def __init__(self, count: int, latent: int, dtype: npt.DTypeLike) -> None:
        super().__init__(np.zeros((count, 2 * latent), dtype), np.zeros((count, 2 * latent), dtype))
        self._slope = np.zeros((count, latent), dtype)
        self._no_bias, self._d_bias = np.zeros((2, 2 * latent), dtype)

    def prepare(self, own: tuple[Floats, ...]) -> None:
        components, logits = own
        self.components[:] = components
        bound_posterior(self.components, self._no_bias, self._slope)
        self.log_pi[:] = logits - np.logaddexp.reduce(logits.astype(np.float64))

    def gradient(self, u: Floats, weight: Sums, log_density: Sums, d_u: Floats, d_own: tuple[Floats, ...]) -> None:
        super().gradient(u, weight, log_density, d_u, d_own)
        bound_posterior_backward(self._d_components, self._slope, self._d_bias)
        d_components, d_logits = d_own
        d_components[:] = self._d_components
        # By the softmax: sum_i weight_i (pi - r_i).
        d_logits[:] = self._d_log_pi - np.exp(self.log_pi) * self._d_log_pi.sum()


def mixture(inputs: int, latent: int, count: int) -> Prior:
    """`count` Gaussians, which begin as unit ones about points drawn from a standard normal."""

    def initial(seed: int, index: int, examples: Floats) -> tuple[Floats, ...]:
        means = np.zeros((count, latent), np.float32)
        standard_normal(means, seed=seed, stream=Stream.INITIAL, step=index, rows=np.arange(count, dtype=np.int64))
        return np.concatenate([means, np.zeros_like(means)], axis=1), np.zeros(count, np.float32)

    def sample(own: tuple[Floats, ...], encoded: Floats, samples: int, seed: int) -> Floats:
        terms = _LearnedTerms(count, latent, own[0].dtype)
        terms.prepare(own)
        return _sample(terms, samples, seed)

    return Prior(
        name=f"mixture:{count}",
        own=(("components", (count, 2 * latent)), ("logits", (count,))),
        beside=0,
        is_standard=False,
        terms=lambda dtype, encoded, d_encoded: _LearnedTerms(count, latent, dtype),
        initial=initial,
        sample=sample,
    )


def vamp(inputs: int, latent: int, count: int) -> Prior:
    """The posteriors of `count` pseudo-inputs."""
    return Prior(
        name=f"vamp:{count}",
        own=(("pseudo_inputs", (count, inputs)),),
        beside=count,
        is_standard=False,
        terms=lambda dtype, encoded, d_encoded: _Terms(encoded, d_encoded),
        initial=lambda seed, index, examples: (examples.astype(np.float32, copy=False),),
        sample=lambda own, encoded, samples, seed: _sample(_Terms(encoded, encoded), samples, seed),
    )


def _sample(terms: _Terms, count: int, seed: int) -> Floats:
    latent = terms.components.shape[1] // 2
    rows = np.arange(count, dtype=np.int64)
    share = np.empty((count, 1))
    uniform(share, seed=seed, stream=Stream.PRIOR, step=1, rows=rows)
    ends = np.cumsum(np.exp(terms.log_pi))
    chosen = np.minimum(np.searchsorted(ends, share[:, 0] * ends[-1], side="right"), len(ends) - 1)
    u = np.empty((count, latent), terms.components.dtype)
    standard_normal(u, seed=seed, stream=Stream.PRIOR, step=0, rows=rows)
    u *= np.exp(0.5 * terms.components[chosen, latent:])
    u += terms.components[chosen, :latent]
    return u
