"""log p(x) of each example by importance sampling, with the posterior as the proposal.

    log p(x) ~ log 1/K sum_k w_k,    log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x),   z_k from q(z|x)

(Burda et al. 2016, equation 8, for one example). The mean of the weights is unbiased, its
logarithm is low by about half the squared standard error. Where the prior maps u to z, p(z) and q(z|x) are those of u:
their ratio is the same.

From the weights also
    effective sample size   (sum w)^2 / sum w^2, between 1 and K (Kong 1992)
    standard error          of log p(x): sd(w) / (mean(w) sqrt(K)), by the delta method

Small effective sample sizes say that neither the estimate nor its standard error is to be trusted.

The noise of sample k of an example is column (k mod 500) * latent + j of row = the example's name, step = k // 500,
in stream EVIDENCE. Each example is encoded and decoded by itself, so its result, bit for bit, does not depend on
which others are evaluated with it or in which process.
"""

import math
from dataclasses import dataclass

import numpy as np

from ps_vae.errors import UsageError
from ps_vae.nn.arrays import Floats, Rows, Sums
from ps_vae.nn.gaussian import log_posterior, reparameterise
from ps_vae.nn.noise import Stream, standard_normal
from ps_vae.vae.inference import prior_terms
from ps_vae.vae.layout import Parameters
from ps_vae.vae.network import Workspace, run_decoder, run_encoder
from ps_vae.vae.priors import PriorTerms
from ps_vae.vae.rows import see, seen_by_decoder, x_of

__all__ = ["CHUNK", "Evidence", "estimate_evidence", "fill_log_weights"]


CHUNK = 500
"""Samples decoded at once; part of the noise's address, so results change with it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Three arrays (rows,) float64: log p(x) in nats, its standard error in nats, the effective sample size.

    -inf, 0 and 0 for an x of which no sample gives a number.
    """

    log_evidence: Sums
    standard_error: Sums
    effective_sample_size: Sums


def estimate_evidence(parameters: Parameters, x: Floats, *, samples: int, seed: int, rows: Rows) -> Evidence:
    """Estimate log p(x) of each row of `x` (n, width); of x given its label where the model has classes.

    x         float32 or float64, of the dtype of the parameters
    samples   K, at least 2
    rows      (n,) int64: the name of each example, e.g. its index in the split

    Raises UsageError for fewer than 2 samples or shapes that do not agree.
    """
    config = parameters.config
    if samples < 2:
        raise UsageError(f"{samples} importance samples: a standard error needs at least 2")
    if x.ndim != 2 or x.shape[1] != config.width or rows.shape != (len(x),):
        raise UsageError(
            f"examples of shape {x.shape} with names of shape {rows.shape}: this model needs (n, {config.width}), (n,)"
        )
    dtype = parameters.vector.dtype
    sizes = [min(CHUNK, samples - start) for start in range(0, samples, CHUNK)]
    workspaces = {size: Workspace(config, 1, dtype, samples=size) for size in set(sizes)}
    prior = prior_terms(parameters)
    log_weights = np.empty(samples)
    evidence = Evidence(*(np.empty(len(x)) for _ in range(3)))
    for i in range(len(x)):
        one = slice(i, i + 1)
        first = workspaces[sizes[0]]
        posterior = run_encoder(parameters, see(parameters, x[one], first), first)
        for chunk, size in enumerate(sizes):
            w = workspaces[size]
            standard_normal(w.noise, seed=seed, stream=Stream.EVIDENCE, step=chunk, rows=rows[one])
            fill_log_weights(parameters, x[one], posterior, prior, w)
            log_weights[chunk * CHUNK : chunk * CHUNK + size] = w.log_weight
        evidence.log_evidence[i], evidence.standard_error[i], evidence.effective_sample_size[i] = _summary(log_weights)
    return evidence


def fill_log_weights(parameters: Parameters, x: Floats, posterior: Floats, prior: PriorTerms, w: Workspace) -> Floats:
    """log w_k of the samples that the workspace's noise makes, in its log_weight; the decoder's outputs for them."""
    log_weight = w.log_weight
    reparameterise(posterior, w.noise, w.u)
    outputs = run_decoder(parameters, seen_by_decoder(x, w), w)
    alone = x_of(x, w.config.inputs)
    w.likelihood.log_likelihood(outputs, parameters.decoder[-1].bias, parameters.own, alone, w.log_likelihood)
    prior.log_density(w.u, w.log_prior)
    log_posterior(posterior, w.noise, log_weight)
    np.subtract(w.log_prior, log_weight, out=log_weight)
    log_weight += w.log_likelihood
    return outputs


def _summary(log_weights: Sums) -> tuple[float, float, float]:
    top = log_weights.max()
    if top == -math.inf:
        # Not even in logarithms is such an x possible.
        return -math.inf, 0.0, 0.0
    weights = np.exp(log_weights - top)
    mean = weights.mean()
    standard_error = weights.std(ddof=1) / (mean * math.sqrt(len(weights)))
    return top + math.log(mean), standard_error, weights.sum() ** 2 / np.square(weights).sum()
