"""Gaussian likelihood with one fixed standard deviation sigma.

    m = outputs + bias
    -log p(x|m) = sum_j (x_j - m_j)^2 / (2 sigma^2) + features (log sigma + log(2 pi) / 2)
    d/dm_j      = (m_j - x_j) / sigma^2

A log-density, in nats: it may be positive, and depends on the unit of x.
"""

import math

import numpy as np

from ps_vae.errors import DataError
from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Array, Floats, Rows, Sums
from ps_vae.nn.likelihoods.likelihood import Likelihood, first_outside

__all__ = ["gaussian"]


def gaussian(sigma: float) -> Likelihood:
    """One output for each feature: the mean. sigma > 0 in the unit of the data."""
    precision = 1 / sigma**2
    constant = math.log(sigma) + math.log(2 * math.pi) / 2

    def loss_gradient(outputs: Floats, bias: Floats, x: Floats, log_likelihood: Sums, d_bias: Floats) -> float:
        total: float = _loss_gradient(outputs, bias, x, log_likelihood, d_bias, precision, constant)
        return total

    def log_density(outputs: Floats, bias: Floats, x: Floats, log_likelihood: Sums) -> None:
        _log_likelihood(outputs, bias, x, log_likelihood, precision, constant)

    def sample(outputs: Floats, bias: Floats, *, seed: int, step: int, rows: Rows) -> Floats:
        x = np.empty_like(outputs)
        noise.standard_normal(x, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
        x *= x.dtype.type(sigma)
        x += _mean(outputs, bias)
        return x

    return Likelihood("gaussian", 1, loss_gradient, log_density, _mean, sample, _check_data, _initial_bias)


@kernel
def _loss_gradient(
    outputs: Floats, bias: Floats, x: Floats, log_likelihood: Sums, d_bias: Floats, precision: float, constant: float
) -> float:
    weight = outputs.dtype.type(precision)
    total = 0.0
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        squares = outputs.dtype.type(0)
        for j in range(outputs.shape[1]):
            difference = outputs[i, j] + bias[j] - x[i, j]
            squares += difference * difference
            d = difference * weight
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


def _mean(outputs: Floats, bias: Floats) -> Floats:
    outputs += bias
    return outputs


def _check_data(data: Array) -> None:
    largest = float(np.finfo(np.float32).max)
    place = first_outside(data, -largest, largest)
    if place:
        raise DataError(
            f"value {data[place]} in row {place[0]}, column {place[1]}: the Gaussian likelihood is for finite "
            "numbers; mend the data"
        )


def _initial_bias(feature_means: Sums) -> Sums:
    return np.array(feature_means, dtype=np.float64)
