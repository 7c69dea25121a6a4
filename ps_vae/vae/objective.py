"""What is minimised, a bound of -log p(x) summed over examples, and its gradient.

    ELBO(x) = log p(x|z) - beta KL(q(z|x) || p(z)),   z = mean(x) + exp(v(x)/2) noise

one sample of z a row (Kingma & Welling 2014, equation 10; beta: Higgins et al. 2017). Backward, with d. the
gradient of -ELBO summed over rows:

    d outputs    the likelihood's own rule              -> likelihood.bias, and what else is learned (sums over rows)
    d z          through the decoder                    -> decoder.*, likelihood.weight
    d mean       d z + beta mean
    d v          d z exp(v/2) noise / 2 + beta (exp(v) - 1) / 2
    d posterior  (d mean, d v b'(u)), b the bound       -> posterior.bias (sum over rows)
    ...          through the encoder                    -> encoder.*, posterior.weight

Where the divergence has no closed form, or several samples are weighed, it is sampled. With W_k what sample k of K
counts (`ps_vae.nn.importance`; 1/K where they are not weighed), u_k = mean + exp(v/2) noise_k, z_k the prior's map of
it:

    -d           sum_k W_k (dlog p(x|z_k) + beta dlog p(u_k) - beta dlog q(u_k|x))
    d u_k        d z_k through the map, - W_k beta dlog p(u_k)/du       -> prior.*
    d mean       sum_k d u_k
    d v          sum_k d u_k exp(v/2) noise_k / 2 - beta / 2            log q depends on v alone at fixed noise

and where the path derivative is taken, d u_k is that, and nothing else reaches v. A VampPrior's components are what the
encoder makes of more rows beside the batch; d posterior of these rows is what log p(u_k) says, and goes the same way
back, to the pseudo-inputs.

A pure function of its arguments: the same values in the same shapes give the same bits, anywhere in memory and in
any process.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from ps_vae.errors import UsageError
from ps_vae.nn.arrays import Floats
from ps_vae.nn.dense import dense_backward
from ps_vae.nn.gaussian import (
    add_kl_gradient,
    bound_posterior_backward,
    kl_standard_normal,
    log_posterior,
    reparameterise,
    reparameterise_backward,
)
from ps_vae.nn.importance import normalise, to_path
from ps_vae.vae.bounds import Objective
from ps_vae.vae.layout import Parameters
from ps_vae.vae.network import Workspace, run_backward, run_decoder, run_encoder
from ps_vae.vae.rows import see, seen_by_decoder, x_of

__all__ = ["ElboSums", "objective_gradient"]


class ElboSums(NamedTuple):
    """Sums over rows, in nats, means over samples; the ELBO at beta = 1 is log_likelihood - kl."""

    log_likelihood: float
    kl: float


def objective_gradient(
    parameters: Parameters,
    batch: Floats,
    noise: Floats,
    *,
    objective: Objective,
    workspace: Workspace,
    gradient: Parameters,
    without: Collection[int] = (),
) -> ElboSums:
    """Overwrite `gradient` with that of the sum over rows of what is minimised.

    parameters  the weights, bound by ParameterLayout.bind; only read
    batch       (rows, width), values the likelihood accepts, and labels behind them if the model has classes
    noise       (rows, samples * latent), standard normal
    objective   the bound and its weights; the sums that are returned do not contain these
    workspace   of as many rows and samples and of the same dtype, one that trains; afterwards holds log_likelihood and
                kl of each row
    gradient    another vector bound by the same layout; its padding is not touched
    without     layers, counted from the encoder's first to the likelihood's, whose weights' gradient is not computed;
                its place is not touched either

    Raises UsageError when the shapes or dtypes do not agree.
    """
    w = workspace
    _check("batch", batch, w.batch)
    _check("noise", noise, w.noise)
    if objective.bound.samples != w.samples or not w.trains:
        raise UsageError(
            f"a workspace for {w.samples} samples that {'trains' if w.trains else 'does not train'}: this bound needs "
            f"one that trains, for {objective.bound.samples}"
        )

    inputs, x = see(parameters, batch, w), x_of(batch, w.config.inputs)
    encoded = run_encoder(parameters, inputs, w)
    posterior = encoded[: w.rows]
    reparameterise(posterior, noise, w.u)
    outputs = run_decoder(parameters, seen_by_decoder(batch, w), w)
    is_sampled = objective.bound.weighs or objective.bound.is_path or not w.prior.is_standard
    if is_sampled:
        w.terms.prepare(parameters.prior)
    if objective.bound.weighs:
        _weigh(parameters, posterior, x, noise, outputs, objective, w)
    else:
        w.weight[:] = 1 / w.samples
    last, d_last = parameters.decoder[-1], gradient.decoder[-1]
    log_likelihood = w.likelihood.loss_gradient(
        outputs, last.bias, parameters.own, x, w.weight, w.log_likelihood, d_last.bias, gradient.own
    )

    above = [layer - len(parameters.encoder) for layer in without] if without else ()
    run_backward(w.z, parameters.decoder, w.decoder, gradient.decoder, w.d_decoder, w.activation, w.d_decoded, above)
    if w.d_decoded is not w.d_z:
        np.copyto(w.d_z, w.d_decoded[:, : w.config.latent])
    if w.prior.to_z_backward is not None:
        w.prior.to_z_backward(w.u, w.d_z)
    d_encoded = w.d_encoder[-1]
    d_posterior = d_encoded[: w.rows]
    if is_sampled:
        kl = _sampled_divergence(posterior, noise, objective, w, gradient, d_posterior)
    else:
        kl = kl_standard_normal(posterior, w.kl)
        reparameterise_backward(w.d_z, posterior, noise, d_posterior)
        add_kl_gradient(
            posterior, w.kl, objective.beta, d_posterior, free=objective.free_bits, capacity=objective.capacity
        )
    bound_posterior_backward(d_encoded, w.slope, gradient.encoder[-1].bias)
    run_backward(inputs, parameters.encoder, w.encoder, gradient.encoder, w.d_encoder, w.activation, None, without)
    if w.prior.beside:
        first, d_first = parameters.encoder[0].weight, w.d_encoder[0][w.rows :]
        dense_backward(inputs[w.rows :], first, d_first, d_weight=None, d_inputs=gradient.prior[0])
    return ElboSums(log_likelihood / w.samples, kl)


def _weigh(
    parameters: Parameters,
    posterior: Floats,
    x: Floats,
    noise: Floats,
    outputs: Floats,
    objective: Objective,
    w: Workspace,
) -> None:
    """What each sample counts."""
    w.likelihood.log_likelihood(outputs, parameters.decoder[-1].bias, parameters.own, x, w.log_likelihood)
    w.terms.log_density(w.u, w.log_prior)
    log_weight = w.log_weight
    log_posterior(posterior, noise, log_weight)
    np.subtract(w.log_prior, log_weight, out=log_weight)
    log_weight *= objective.beta
    log_weight += w.log_likelihood
    normalise(log_weight, w.rows, w.weight)


def _sampled_divergence(
    posterior: Floats, noise: Floats, objective: Objective, w: Workspace, gradient: Parameters, d_posterior: Floats
) -> float:
    """From d z to d posterior, by way of what the prior and the posterior say of the samples; and the divergence."""
    w.terms.gradient(w.u, objective.beta * w.weight, w.log_prior, w.d_z, gradient.prior)
    if objective.bound.is_path:
        to_path(w.d_z, posterior, noise, w.weight, objective.beta, weights_are_functions=objective.bound.weighs)
    reparameterise_backward(w.d_z, posterior, noise, d_posterior)
    if not objective.bound.is_path:
        d_posterior[:, posterior.shape[1] // 2 :] -= objective.beta / 2
    return _divergence(posterior, w)


def _divergence(posterior: Floats, w: Workspace) -> float:
    """The closed form where there is one, else the mean over samples of -log p(u), less the posterior's entropy."""
    if w.prior.is_standard:
        return kl_standard_normal(posterior, w.kl)
    kl, log_variance = w.kl, posterior[:, posterior.shape[1] // 2 :]
    np.sum(log_variance + (1 + np.log(2 * np.pi)), axis=1, dtype=np.float64, out=kl)
    kl *= -0.5
    kl -= w.log_prior.reshape(w.samples, w.rows).mean(axis=0)
    return float(kl.sum())


def _check(name: str, given: Floats, expected: Floats) -> None:
    if given.shape != expected.shape or given.dtype != expected.dtype:
        raise UsageError(
            f"{name} is {given.dtype} {given.shape}, this workspace is for {expected.dtype} {expected.shape}"
        )
