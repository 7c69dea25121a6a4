"""Gaussian likelihood with one fixed standard deviation sigma.

    m = outputs + bias
    -log p(x|m) = sum_j (x_j - m_j)^2 / (2 sigma^2) + features (log sigma + log(2 pi) / 2)
    d/dm_j      = (m_j - x_j) / sigma^2

A log-density, in nats: it may be positive, and depends on the unit of x.
"""

import math

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Array, Floats, Rows, Sums
from ps_vae.nn.likelihoods.fault import Fault, first_outside, wrong_value
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own

__all__ = ["gaussian", "mean_of", "not_finite"]


def gaussian(features: int, sigma: float) -> Likelihood:
    """One output for each feature: the mean. sigma > 0 in the unit of the data."""
    precision = 1 / sigma**2
    constant = math.log(sigma) + math.log(2 * math.pi) / 2

    def loss_gradient(
        outputs: Floats,
        bias: Floats,
        own: Own,
        x: Floats,
        weight: Sums,
        log_likelihood: Sums,
        d_bias: Floats,
        d_own: Own,
    ) -> float:
        total: float = _loss_gradient(outputs, bias, x, weight, log_likelihood, d_bias, precision, constant)
        return total

    def log_density(outputs: Floats, bias: Floats, own: Own, x: Floats, log_likelihood: Sums) -> None:
        _log_likelihood(outputs, bias, x, log_likelihood, precision, constant)

    def sample(outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
        x = np.empty_like(outputs)
        noise.standard_normal(x, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
        x *= x.dtype.type(sigma)
        x += mean_of(outputs, bias, own)
        return x

    return Likelihood(
        name="gaussian",
        features=features,
        outputs=features,
        loss_gradient=loss_gradient,
        log_likelihood=log_density,
        mean=mean_of,
        sample=sample,
        fault=not_finite,
        initial=lambda means, variances: Initial(np.array(means, dtype=np.float64)),
    )


def mean_of(outputs: Floats, bias: Floats, own: Own) -> Floats:
    """The mean where it is the only output of each feature, in place."""
    outputs += bias
    return outputs


def not_finite(data: Array) -> Fault | None:
    """The first value that is not a finite number."""
    largest = float(np.finfo(np.float32).max)
    if (place := first_outside(data, -largest, largest)) is None:
        return None
    return wrong_value(data, place, "the Gaussian likelihood is for finite numbers; mend the data")


@kernel
def _loss_gradient(
    outputs: Floats,
    bias: Floats,
    x: Floats,
    weight: Sums,
    log_likelihood: Sums,
    d_bias: Floats,
    precision: float,
    constant: float,
) -> float:
    number = outputs.dtype.type
    total = 0.0
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        of_row = number(precision * weight[i])
        squares = number(0)
        for j in range(outputs.shape[1]):
            difference = outputs[i, j] + bias[j] - x[row, j]
            squares += difference * difference
            d = difference * of_row
            outputs[i, j] = d
            d_bias[j] += d
        log_likelihood[i] = -0.5 * precision * squares - constant * outputs.shape[1]
        total += log_likelihood[i]
    return total


@kernel
def _log_likelihood(
    outputs: Floats, bias: Floats, x: Floats, log_likelihood: Sums, precision: float, constant: float
) -> None:
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        squares = outputs.dtype.type(0)
        for j in range(outputs.shape[1]):
            difference = outputs[i, j] + bias[j] - x[row, j]
            squares += difference * difference
        log_likelihood[i] = -0.5 * precision * squares - constant * outputs.shape[1]
