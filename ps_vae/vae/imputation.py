"""What is missing of an x, expected from what is there, by importance sampling with the posterior as the proposal.

    E[x_m | x_o] ~ sum_k w_k E[x_m | z_k] / sum_k w_k,    log w_k = log p(x_o|z_k) + log p(z_k) - log q(z_k|x_o)

(Mattei & Frellsen 2019, with the mean of p(x_m|z_k) in the place of a draw from it). The weights are those of
`ps_vae.vae.evidence`, and so is their noise.
"""

import math

import numpy as np

from ps_vae.errors import UsageError
from ps_vae.nn.arrays import Floats, Rows
from ps_vae.nn.noise import Stream, standard_normal
from ps_vae.vae.evidence import CHUNK, fill_log_weights
from ps_vae.vae.inference import prior_terms
from ps_vae.vae.layout import Parameters
from ps_vae.vae.network import Workspace, run_encoder
from ps_vae.vae.rows import see

__all__ = ["impute"]


def impute(parameters: Parameters, x: Floats, *, samples: int, seed: int, rows: Rows) -> Floats:
    """The features of `x` (n, width), with their expectation where they are NaN: (n, inputs).

    They stay NaN in a row which has something that is impossible under all samples.

    samples   K, at least 1
    rows      (n,) int64: the name of each example

    Raises UsageError for no samples or shapes that do not agree.
    """
    config = parameters.config
    if samples < 1:
        raise UsageError(f"{samples} importance samples: give at least 1")
    if x.ndim != 2 or x.shape[1] != config.width or rows.shape != (len(x),):
        raise UsageError(
            f"examples of shape {x.shape} with names of shape {rows.shape}: this model needs (n, {config.width}), (n,)"
        )
    dtype = parameters.vector.dtype
    filled = x[:, : config.inputs].copy()
    sizes = [min(CHUNK, samples - start) for start in range(0, samples, CHUNK)]
    workspaces = {size: Workspace(config, 1, dtype, samples=size) for size in set(sizes)}
    prior, bias = prior_terms(parameters), parameters.decoder[-1].bias
    for i in np.flatnonzero(np.isnan(filled).any(axis=1)):
        one = slice(i, i + 1)
        first = workspaces[sizes[0]]
        posterior = run_encoder(parameters, see(parameters, x[one], first), first)
        top, total, expected = -math.inf, 0.0, np.zeros(config.inputs)
        for chunk, size in enumerate(sizes):
            w = workspaces[size]
            standard_normal(w.noise, seed=seed, stream=Stream.EVIDENCE, step=chunk, rows=rows[one])
            outputs = fill_log_weights(parameters, x[one], posterior, prior, w)
            highest = float(w.log_weight.max())
            if math.isnan(highest):
                total = math.nan
                break
            above = max(top, highest)
            if above == -math.inf:
                continue
            # What was summed so far is in units of exp(top).
            weights, scale = np.exp(w.log_weight - above), math.exp(top - above)
            total = total * scale + float(weights.sum())
            expected = expected * scale + weights @ w.likelihood.mean(outputs, bias, parameters.own)
            top = above
        missing = np.isnan(filled[i])
        filled[i, missing] = (expected / total if total else np.full_like(expected, np.nan))[missing]
    return filled
