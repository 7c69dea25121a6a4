"""The evidence lower bound and its gradient.

    ELBO(x) = log p(x|z) - beta KL(q(z|x) || N(0, 1)),   z = mean(x) + exp(v(x)/2) noise

one sample of z a row (Kingma & Welling 2014, equation 10; beta: Higgins et al. 2017). Backward, with d. the
gradient of -ELBO summed over rows:

    d outputs    the likelihood's own rule              -> likelihood.bias, and what else is learned (sums over rows)
    d z          through the decoder                    -> decoder.*, likelihood.weight
    d mean       d z + beta mean
    d v          d z exp(v/2) noise / 2 + beta (exp(v) - 1) / 2
    d posterior  (d mean, d v b'(u)), b the bound       -> posterior.bias (sum over rows)
    ...          through the encoder                    -> encoder.*, posterior.weight

A pure function of its arguments: the same values in the same shapes give the same bits, anywhere in memory and in
any process. No array is allocated.
"""

from collections.abc import Collection
from typing import NamedTuple

from ps_vae.errors import UsageError
from ps_vae.nn.arrays import Floats
from ps_vae.nn.gaussian import (
    add_kl_gradient,
    bound_posterior_backward,
    kl_standard_normal,
    reparameterise,
    reparameterise_backward,
)
from ps_vae.vae.layout import Parameters
from ps_vae.vae.network import Workspace, run_backward, run_decoder, run_encoder

__all__ = ["ElboSums", "elbo_gradient"]


class ElboSums(NamedTuple):
    """Sums over rows, in nats; the ELBO at beta = 1 is log_likelihood - kl."""

    log_likelihood: float
    kl: float


def elbo_gradient(
    parameters: Parameters,
    batch: Floats,
    noise: Floats,
    *,
    beta: float,
    workspace: Workspace,
    gradient: Parameters,
    without: Collection[int] = (),
) -> ElboSums:
    """Overwrite `gradient` with that of -sum over rows of ELBO(x).

    parameters  the weights, bound by ParameterLayout.bind; only read
    batch       (rows, inputs), values the likelihood accepts
    noise       (rows, latent), standard normal
    beta        weight of the divergence; the sums that are returned do not contain it
    workspace   of as many rows and of the same dtype; afterwards holds log_likelihood and kl of each row
    gradient    another vector bound by the same layout; its padding is not touched
    without     layers, counted from the encoder's first to the likelihood's, whose weights' gradient is not computed;
                its place is not touched either

    Raises UsageError when the shapes or dtypes do not agree.
    """
    _check("batch", batch, workspace.batch)
    _check("noise", noise, workspace.noise)
    w = workspace

    posterior = run_encoder(parameters, batch, w)
    reparameterise(posterior, noise, w.z)
    kl = kl_standard_normal(posterior, w.kl)
    outputs = run_decoder(parameters, w.z, w)
    last, d_last = parameters.decoder[-1], gradient.decoder[-1]
    log_likelihood = w.likelihood.loss_gradient(
        outputs, last.bias, parameters.own, batch, w.weight, w.log_likelihood, d_last.bias, gradient.own
    )

    above = [layer - len(parameters.encoder) for layer in without] if without else ()
    run_backward(w.z, parameters.decoder, w.decoder, gradient.decoder, w.d_decoder, w.activation, w.d_z, above)
    d_posterior = w.d_encoder[-1]
    reparameterise_backward(w.d_z, posterior, noise, d_posterior)
    add_kl_gradient(posterior, beta, d_posterior)
    bound_posterior_backward(d_posterior, w.slope, gradient.encoder[-1].bias)
    run_backward(batch, parameters.encoder, w.encoder, gradient.encoder, w.d_encoder, w.activation, None, without)
    return ElboSums(log_likelihood, kl)


def _check(name: str, given: Floats, expected: Floats) -> None:
    if given.shape != expected.shape or given.dtype != expected.dtype:
        raise UsageError(
            f"{name} is {given.dtype} {given.shape}, this workspace is for {expected.dtype} {expected.shape}"
        )
