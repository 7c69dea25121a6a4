"""Continuous Bernoulli: the Bernoulli's form as a density on [0, 1], normalised (Loaiza-Ganem & Cunningham 2019).

    a = outputs + bias,     lambda = sigmoid(a)
    -log p(x|a) = sum_j softplus(a_j) - a_j x_j - log C(a_j),     log C(a) = log(a / tanh(a/2))
    E[x|a]      = m(a) = 1 / (1 - exp(-a)) - 1/a
    d/da_j      = m(a_j) - x_j

log C and m are smooth and even, and odd about 1/2; near a = 0 (lambda = 1/2) their formulas are 0/0, and there they are
their Taylor series (m: the generating function of the Bernoulli numbers, coefficients B_2k / (2k)!):

    log C(a) = log 2 + a^2/12 - 7 a^4/1440 + 31 a^6/90720 - 127 a^8/4838400 + 73 a^10/34214400 - ...
    m(a)     = 1/2 + a/12 - a^3/720 + a^5/30240 - a^7/1209600 + a^9/47900160 - ...

A density: it may be above one, and the log-likelihood above zero.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Array, Floats, Rows, Sums
from ps_vae.nn.elementary import expm1, implement, log, softplus, tanh
from ps_vae.nn.likelihoods.fault import Fault, first_outside, wrong_value
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own, without_own

__all__ = ["continuous_bernoulli"]

# Where the series are as good as the formulas in float64, and better in float32.
_NEAR = 0.25
_LOG_SERIES = (np.log(2), 1 / 12, -7 / 1440, 31 / 90720, -127 / 4838400, 73 / 34214400)
_MEAN_SERIES = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160)
_RAREST = 0.001


def continuous_bernoulli(features: int) -> Likelihood:
    """One output for each feature: a, the logit of lambda."""
    loss_gradient, log_likelihood = without_own(_loss_gradient, _log_likelihood)
    return Likelihood(
        name="continuous-bernoulli",
        features=features,
        outputs=features,
        loss_gradient=loss_gradient,
        log_likelihood=log_likelihood,
        mean=_mean,
        sample=_sample,
        fault=_fault,
        initial=lambda means, variances: Initial(_inverse_mean(means)),
    )


@kernel
def _loss_gradient(
    outputs: Floats, bias: Floats, x: Floats, weight: Sums, log_likelihood: Sums, d_bias: Floats
) -> float:
    number = outputs.dtype.type
    total = 0.0
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        of_row = number(weight[i])
        loss = number(0)
        for j in range(outputs.shape[1]):
            a = outputs[i, j] + bias[j]
            loss += softplus(a) - a * x[row, j] - _log_normaliser(a)
            d = of_row * (_mean_at(a) - x[row, j])
            outputs[i, j] = d
            d_bias[j] += d
        log_likelihood[i] = -loss
        total -= np.float64(loss)
    return total


@kernel
def _log_likelihood(outputs: Floats, bias: Floats, x: Floats, log_likelihood: Sums) -> None:
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        loss = outputs.dtype.type(0)
        for j in range(outputs.shape[1]):
            a = outputs[i, j] + bias[j]
            loss += softplus(a) - a * x[row, j] - _log_normaliser(a)
        log_likelihood[i] = -loss


@kernel
def _means(outputs: Floats, bias: Floats) -> None:
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            outputs[i, j] = _mean_at(outputs[i, j] + bias[j])


def _log_normaliser(x: Any) -> Any:
    """log C(x)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(x) < _NEAR, np.polyval(_LOG_SERIES[::-1], x * x), np.log(x / np.tanh(x / 2)))


def _mean_at(x: Any) -> Any:
    """m(x)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        near = 0.5 + x * np.polyval(_MEAN_SERIES[::-1], x * x)
        return np.where(np.abs(x) < _NEAR, near, -1 / np.expm1(-x) - 1 / x)


def _log_normaliser_in(number: type[np.floating[Any]]) -> Callable[[Any], Any]:
    near, half = number(_NEAR), number(0.5)
    c0, c1, c2, c3, c4, c5 = map(number, _LOG_SERIES)

    def log_normaliser(x: Any) -> Any:
        size, square = abs(x), x * x
        series = c0 + square * (c1 + square * (c2 + square * (c3 + square * (c4 + square * c5))))
        return series if size < near else log(size) - log(tanh(half * size))

    return log_normaliser


def _mean_in(number: type[np.floating[Any]]) -> Callable[[Any], Any]:
    near, half, one = number(_NEAR), number(0.5), number(1)
    c1, c2, c3, c4, c5 = map(number, _MEAN_SERIES)

    def mean(x: Any) -> Any:
        square = x * x
        series = half + x * (c1 + square * (c2 + square * (c3 + square * (c4 + square * c5))))
        return series if abs(x) < near else -one / expm1(-x) - one / x

    return mean


implement(_log_normaliser, _log_normaliser_in(np.float32), _log_normaliser_in(np.float64))
implement(_mean_at, _mean_in(np.float32), _mean_in(np.float64))


def _mean(outputs: Floats, bias: Floats, own: Own) -> Floats:
    _means(outputs, bias)
    return outputs


def _sample(outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
    """By the inverse of the distribution function, log(1 + u (e^a - 1)) / a, at -|a|, where nothing overflows."""
    u = np.empty_like(outputs)
    noise.uniform(u, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
    a = (outputs + bias).astype(np.float64)
    size = np.maximum(np.abs(a), 1e-9)
    x = np.log1p(u * np.expm1(-size)) / -size
    return np.clip(np.where(a > 0, 1 - x, x), 0, 1).astype(outputs.dtype)


def _fault(data: Array) -> Fault | None:
    if (place := first_outside(data, 0, 1)) is None:
        return None
    why = "the continuous Bernoulli likelihood is for data in [0, 1]; scale the data or use gaussian-feature"
    return wrong_value(data, place, why)


def _inverse_mean(means: Sums) -> Sums:
    """a of which m(a) is the mean, by bisection: m grows, and at 2,000 it is 0.9995."""
    wanted = np.clip(means, _RAREST, 1 - _RAREST)
    low, high = np.full_like(wanted, -2000.0), np.full_like(wanted, 2000.0)
    for _ in range(100):
        middle = 0.5 * (low + high)
        is_low = _mean_at(middle) < wanted
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    return 0.5 * (low + high)
