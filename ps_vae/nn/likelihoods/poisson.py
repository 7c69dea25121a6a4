"""Poisson likelihood of counts, with the logarithm of the rate from the decoder.

    a = outputs + bias,     eta = b(a) = a - softplus(a - 26)
    -log p(x|a) = sum_j exp(eta_j) - x_j eta_j + log(x_j!)
    d/da_j      = (exp(eta_j) - x_j) b'(a_j),     b'(a) = sigmoid(26 - a)

b is the identity to 1e-4 up to the largest counts that are taken, and keeps the rate below e^26 = 2e11: one step that
goes wrong does not make numbers that no step brings back.
"""

import math

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Floats, Rows, Sums
from ps_vae.nn.elementary import exp, sigmoid, softplus
from ps_vae.nn.likelihoods.counts import HIGHEST, RAREST, count_at, log_factorials, no_count
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own, without_own

__all__ = ["poisson"]


def poisson(features: int) -> Likelihood:
    """One output for each feature: the logarithm of its rate."""
    loss_gradient, log_likelihood = without_own(_loss_gradient, _log_likelihood)
    return Likelihood(
        name="poisson",
        features=features,
        outputs=features,
        loss_gradient=loss_gradient,
        log_likelihood=log_likelihood,
        mean=_mean,
        sample=_sample,
        fault=no_count,
        initial=lambda means, variances: Initial(np.log(np.maximum(means, RAREST))),
    )


@kernel
def _loss_gradient(
    outputs: Floats, bias: Floats, x: Floats, weight: Sums, log_likelihood: Sums, d_bias: Floats
) -> float:
    number = outputs.dtype.type
    highest = number(HIGHEST)
    total = 0.0
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        of_row = number(weight[i])
        loss = 0.0
        for j in range(outputs.shape[1]):
            a = outputs[i, j] + bias[j]
            eta = a - softplus(a - highest)
            # Of large counts nearly all of the loss is taken away again by log(x!).
            rate = exp(np.float64(eta))
            loss += rate - np.float64(x[row, j]) * np.float64(eta)
            d = of_row * (number(rate) - x[row, j]) * sigmoid(highest - a)
            outputs[i, j] = d
            d_bias[j] += d
        log_likelihood[i] = -loss - log_factorials(x[row])
        total += log_likelihood[i]
    return total


@kernel
def _log_likelihood(outputs: Floats, bias: Floats, x: Floats, log_likelihood: Sums) -> None:
    highest = outputs.dtype.type(HIGHEST)
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        loss = 0.0
        for j in range(outputs.shape[1]):
            a = outputs[i, j] + bias[j]
            eta = a - softplus(a - highest)
            loss += exp(np.float64(eta)) - np.float64(x[row, j]) * np.float64(eta)
        log_likelihood[i] = -loss - log_factorials(x[row])


@kernel
def _rates(outputs: Floats, bias: Floats) -> None:
    highest = outputs.dtype.type(HIGHEST)
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            a = outputs[i, j] + bias[j]
            outputs[i, j] = exp(a - softplus(a - highest))


def _mean(outputs: Floats, bias: Floats, own: Own) -> Floats:
    _rates(outputs, bias)
    return outputs


def _sample(outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
    """The count into whose share of [0, 1) a uniform falls."""
    rates = _mean(outputs, bias, own)
    u = np.empty_like(rates)
    noise.uniform(u, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
    _invert(u, rates)
    return rates


@kernel
def _invert(u: Floats, rates: Floats) -> None:
    for i in range(rates.shape[0]):
        for j in range(rates.shape[1]):
            rate = np.float64(rates[i, j])
            mode = int(rate)
            logarithm = mode * math.log(rate) - rate - math.lgamma(mode + 1.0) if rate > 0.0 else 0.0
            rates[i, j] = count_at(np.float64(u[i, j]), mode, math.exp(logarithm), 0.0, rate)
