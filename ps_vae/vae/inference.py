"""What a trained model is used for: encoding, decoding, reconstructing, sampling, and the terms of the ELBO.

All functions take and return whole arrays and work through them in chunks, so that what they need besides is a
few megabytes. The posterior's log-variance is always the bounded one. Rows are float32 or float64, of the dtype
of the parameters.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ps_vae.errors import UsageError
from ps_vae.nn.arrays import Floats, Sums
from ps_vae.nn.gaussian import kl_standard_normal, reparameterise
from ps_vae.nn.noise import Stream, standard_normal
from ps_vae.vae.layout import Parameters
from ps_vae.vae.network import Workspace, run_decoder, run_encoder

__all__ = ["ElboTerms", "Posterior", "decode", "elbo_terms", "encode", "reconstruct", "sample_prior"]

_CHUNK = 256


class Posterior(NamedTuple):
    """q(z|x) of each row: two arrays (rows, latent)."""

    mean: Floats
    log_variance: Floats


class ElboTerms(NamedTuple):
    """Two arrays (rows,) float64, in nats; the ELBO of a row is log_likelihood - kl."""

    log_likelihood: Sums
    kl: Sums


def encode(parameters: Parameters, x: Floats) -> Posterior:
    """The posterior of each row of `x` (rows, inputs)."""
    _check_width("examples", x, parameters.config.inputs)
    latent = parameters.config.latent
    result = np.empty((len(x), 2 * latent), parameters.vector.dtype)
    for part, workspace in _chunks(parameters, len(x)):
        result[part] = run_encoder(parameters, x[part], workspace)
    return Posterior(result[:, :latent], result[:, latent:])


def decode(parameters: Parameters, z: Floats) -> Floats:
    """E[x|z] for each row of `z` (rows, latent): (rows, inputs)."""
    _check_width("latent vectors", z, parameters.config.latent)
    means = np.empty((len(z), parameters.config.inputs), parameters.vector.dtype)
    for part, workspace in _chunks(parameters, len(z)):
        outputs = run_decoder(parameters, z[part], workspace)
        means[part] = workspace.likelihood.mean(outputs, parameters.decoder[-1].bias, parameters.own)
    return means


def reconstruct(parameters: Parameters, x: Floats) -> Floats:
    """E[x|z] at z = the posterior's mean, for each row of `x` (rows, inputs): the same shape."""
    return decode(parameters, encode(parameters, x).mean)


def sample_prior(parameters: Parameters, count: int, *, seed: int) -> tuple[Floats, Floats]:
    """`count` draws z (count, latent) from the prior, and E[x|z] (count, inputs)."""
    z = np.empty((count, parameters.config.latent), parameters.vector.dtype)
    standard_normal(z, seed=seed, stream=Stream.PRIOR, step=0, rows=np.arange(count, dtype=np.int64))
    return z, decode(parameters, z)


def elbo_terms(parameters: Parameters, x: Floats, noise: Floats) -> ElboTerms:
    """The two terms of the ELBO of each row of `x` (rows, inputs), at one sample z a row.

    noise   (rows, latent) standard normal
    """
    _check_width("examples", x, parameters.config.inputs)
    _check_width("noise", noise, parameters.config.latent)
    if len(noise) != len(x):
        raise UsageError(f"noise for {len(noise)} rows and {len(x)} examples: give one row of noise for each")
    terms = ElboTerms(np.empty(len(x)), np.empty(len(x)))
    for part, workspace in _chunks(parameters, len(x)):
        posterior = run_encoder(parameters, x[part], workspace)
        kl_standard_normal(posterior, terms.kl[part])
        reparameterise(posterior, noise[part], workspace.z)
        outputs = run_decoder(parameters, workspace.z, workspace)
        bias, into = parameters.decoder[-1].bias, terms.log_likelihood[part]
        workspace.likelihood.log_likelihood(outputs, bias, parameters.own, x[part], into)
    return terms


def _chunks(parameters: Parameters, rows: int) -> Iterator[tuple[slice, Workspace]]:
    workspace = None
    for start in range(0, rows, _CHUNK):
        part = slice(start, min(start + _CHUNK, rows))
        if workspace is None or workspace.rows != part.stop - part.start:
            workspace = Workspace(parameters.config, part.stop - part.start, parameters.vector.dtype)
        yield part, workspace


def _check_width(what: str, rows: Floats, width: int) -> None:
    if rows.ndim != 2 or rows.shape[1] != width:
        raise UsageError(f"{what} of shape {rows.shape}: this model needs (rows, {width})")
