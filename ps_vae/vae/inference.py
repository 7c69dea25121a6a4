"""What a trained model is used for: encoding, decoding, reconstructing, sampling, and the terms of the ELBO.

All functions take and return whole arrays and work through them in chunks, so that what they need besides is a
few megabytes. The posterior's log-variance is always the bounded one. Rows are float32 or float64, of the dtype
of the parameters.

z is what the decoder sees. A prior may give it by coordinates u in which the posterior is Gaussian (the uniform prior:
z in the unit cube); mean, log-variance and noise are always of u, and "at the posterior's mean" is z of the mean of u.
Where the model is conditioned on labels, rows have their label behind their features (`ps_vae.vae.rows`), and so has z
where it is to be decoded.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ps_vae.errors import UsageError
from ps_vae.nn.arrays import Floats, Rows, Sums
from ps_vae.nn.gaussian import kl_standard_normal, log_posterior, reparameterise
from ps_vae.vae.config import prior_of
from ps_vae.vae.layout import Parameters
from ps_vae.vae.network import Workspace, run_decoder, run_encoder
from ps_vae.vae.priors import PriorTerms
from ps_vae.vae.rows import joined, see, seen_by_decoder, x_of

__all__ = [
    "ElboTerms",
    "Posterior",
    "decode",
    "draw",
    "elbo_terms",
    "encode",
    "latent_of",
    "prior_terms",
    "reconstruct",
    "sample_prior",
]

_CHUNK = 256


class Posterior(NamedTuple):
    """q(u|x) of each row: two arrays (rows, latent)."""

    mean: Floats
    log_variance: Floats


class ElboTerms(NamedTuple):
    """Two arrays (rows,) float64, in nats; the ELBO of a row is log_likelihood - kl."""

    log_likelihood: Sums
    kl: Sums


def encode(parameters: Parameters, x: Floats) -> Posterior:
    """The posterior of each row of `x` (rows, width)."""
    _check_width("examples", x, parameters.config.width)
    latent = parameters.config.latent
    result = np.empty((len(x), 2 * latent), parameters.vector.dtype)
    for part, workspace in _chunks(parameters, len(x)):
        result[part] = run_encoder(parameters, see(parameters, x[part], workspace), workspace)
    return Posterior(result[:, :latent], result[:, latent:])


def decode(parameters: Parameters, z: Floats) -> Floats:
    """E[x|z] for each row of `z` (rows, latent + classes): (rows, inputs)."""
    means = np.empty((len(z), parameters.config.inputs), parameters.vector.dtype)
    for part, workspace, outputs in _decoded(parameters, z):
        means[part] = workspace.likelihood.mean(outputs, parameters.decoder[-1].bias, parameters.own)
    return means


def draw(parameters: Parameters, z: Floats, *, seed: int, step: int = 0, rows: Rows | None = None) -> Floats:
    """x drawn from p(x|z), one for each row of `z` (rows, latent + classes): (rows, inputs).

    step, rows  what names the noise (stream OBSERVATION) of each row besides the seed; None: its place in `z`
    """
    names = np.arange(len(z), dtype=np.int64) if rows is None else rows
    if names.shape != (len(z),):
        raise UsageError(f"names of shape {names.shape} for {len(z)} latent vectors: give one for each")
    drawn = np.empty((len(z), parameters.config.inputs), parameters.vector.dtype)
    for part, workspace, outputs in _decoded(parameters, z):
        bias, own = parameters.decoder[-1].bias, parameters.own
        drawn[part] = workspace.likelihood.sample(outputs, bias, own, seed=seed, step=step, rows=names[part])
    return drawn


def reconstruct(parameters: Parameters, x: Floats) -> Floats:
    """E[x|z] at the posterior's mean, for each row of `x` (rows, width): (rows, inputs)."""
    return decode(parameters, joined(latent_of(parameters, encode(parameters, x).mean), x, parameters.config.inputs))


def latent_of(parameters: Parameters, u: Floats) -> Floats:
    """z of coordinates u (rows, latent); u itself where the prior has no map."""
    to_z = prior_of(parameters.config).to_z
    if to_z is None:
        return u
    z = np.empty_like(u)
    to_z(u, z)
    return z


def prior_terms(parameters: Parameters) -> PriorTerms:
    """The prior with its parameters, ready to be asked."""
    prior = prior_of(parameters.config)
    encoded = _beside(parameters)
    terms = prior.terms(parameters.vector.dtype, encoded, np.empty_like(encoded))
    terms.prepare(parameters.prior)
    return terms


def sample_prior(parameters: Parameters, count: int, *, seed: int) -> Floats:
    """`count` draws z (count, latent) from the prior."""
    prior = prior_of(parameters.config)
    return latent_of(parameters, prior.sample(parameters.prior, _beside(parameters), count, seed))


def elbo_terms(parameters: Parameters, x: Floats, noise: Floats) -> ElboTerms:
    """The two terms of the ELBO of each row of `x` (rows, width), at one sample z a row.

    The divergence is log q(z|x) - log p(z) of that sample where it has no closed form.

    noise   (rows, latent) standard normal
    """
    _check_width("examples", x, parameters.config.width)
    _check_width("noise", noise, parameters.config.latent)
    if len(noise) != len(x):
        raise UsageError(f"noise for {len(noise)} rows and {len(x)} examples: give one row of noise for each")
    terms = ElboTerms(np.empty(len(x)), np.empty(len(x)))
    prior, density, features = prior_of(parameters.config), prior_terms(parameters), parameters.config.inputs
    for part, workspace in _chunks(parameters, len(x)):
        posterior = run_encoder(parameters, see(parameters, x[part], workspace), workspace)
        reparameterise(posterior, noise[part], workspace.u)
        if prior.is_standard:
            kl_standard_normal(posterior, terms.kl[part])
        else:
            log_posterior(posterior, noise[part], terms.kl[part])
            density.log_density(workspace.u, workspace.log_prior)
            terms.kl[part] -= workspace.log_prior
        outputs = run_decoder(parameters, seen_by_decoder(x[part], workspace), workspace)
        bias, into, alone = parameters.decoder[-1].bias, terms.log_likelihood[part], x_of(x[part], features)
        workspace.likelihood.log_likelihood(outputs, bias, parameters.own, alone, into)
    return terms


def _beside(parameters: Parameters) -> Floats:
    """What the encoder makes of the prior's pseudo-inputs, (beside, 2 latent)."""
    prior = prior_of(parameters.config)
    if not prior.beside:
        return np.empty((0, 2 * parameters.config.latent), parameters.vector.dtype)
    # They are what the encoder sees, not rows of data.
    workspace = Workspace(parameters.config, prior.beside, parameters.vector.dtype)
    return run_encoder(parameters, parameters.prior[0], workspace)


def _decoded(parameters: Parameters, z: Floats) -> Iterator[tuple[slice, Workspace, Floats]]:
    """The decoder's outputs for some rows of `z` after the others, which may be written to."""
    _check_width("latent vectors", z, parameters.config.latent + parameters.config.classes)
    for part, workspace in _chunks(parameters, len(z)):
        yield part, workspace, run_decoder(parameters, z[part], workspace)


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
