"""Discretised logistic likelihood of values on 256 levels, such as grey pixels: a probability, not a density.

    m = outputs + bias,     s_j = exp(t_j), t bounded,     x in 0, 1/255, ..., 1,     d = 1/255
    p(x|m) = sigmoid(u) - sigmoid(l),     u = (x + d/2 - m) / s,     l = (x - d/2 - m) / s
           = sigmoid(u) sigmoid(-l) (1 - exp(-d/s))            what is outside of [0, 1] belongs to 0 and to 1:
    p(0)   = sigmoid(u),     p(1) = sigmoid(-l)

so in logarithms nothing is lost at either tail:

    -log p  = softplus(-u) + softplus(l) - log(1 - exp(-d/s))  (0: without l, 1: without u, both without the last)
    d/dm    = (sigmoid(-u) - sigmoid(l)) / s
    d/dt    = u sigmoid(-u) - l sigmoid(l) + (d/s) / (exp(d/s) - 1)

Salimans et al. (2017), equation 2, and Kingma et al. (2016), appendix; t, one learned number for each feature, is
bounded to (-10, 2), smoothly, as the posterior's log-variance is (`ps_vae.nn.gaussian`).
"""

import math

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Array, Floats, Rows, Sums
from ps_vae.nn.elementary import sigmoid, softplus
from ps_vae.nn.likelihoods.fault import Fault, first_outside, wrong_value
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own

__all__ = ["logistic"]

_TOP = 255
_HALF = 0.5 / _TOP
_LOW, _HIGH = -10.0, 2.0
# How far a value may lie from its level: what float32 makes of it.
_ROUNDING = 1e-3


def logistic(features: int) -> Likelihood:
    """One output for each feature: m; `log_scale` (features,) is learned."""
    return Likelihood(
        name="logistic",
        features=features,
        outputs=features,
        own=(("log_scale", features),),
        loss_gradient=_loss_gradient_of,
        log_likelihood=_log_likelihood_of,
        mean=_mean,
        sample=_sample,
        fault=_fault,
        initial=_initial,
    )


def _fault(data: Array) -> Fault | None:
    levels = data * _TOP
    place = first_outside(data, 0, 1)
    if place is None and (between := np.argwhere(np.abs(levels - np.round(levels)) > _ROUNDING)).size:
        place = int(between[0][0]), int(between[0][1])
    if place is None:
        return None
    why = (
        "the logistic likelihood is for 256 levels from 0 to 1, as uint8 has them; for other values from 0 to 1 take "
        "continuous-bernoulli, for numbers gaussian-feature"
    )
    return wrong_value(data, place, why)


def _initial(means: Sums, variances: Sums) -> Initial:
    """The scale by the variance, s^2 pi^2 / 3; m by bisection: the mean grows with it."""
    scale = np.sqrt(3 * np.maximum(variances, _HALF**2)) / math.pi
    log_scale = np.log(scale)
    low, high = np.full_like(means, -30.0), np.full_like(means, 31.0)
    wanted = np.clip(means, 0.001, 0.999)
    for _ in range(80):
        middle = 0.5 * (low + high)
        is_low = _mean(np.zeros((1, means.size)), middle, (log_scale,))[0] < wanted
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    return Initial(0.5 * (low + high), (log_scale,))


def _loss_gradient_of(
    outputs: Floats, bias: Floats, own: Own, x: Floats, weight: Sums, log_likelihood: Sums, d_bias: Floats, d_own: Own
) -> float:
    total: float = _loss_gradient(outputs, bias, own[0], x, weight, log_likelihood, d_bias, d_own[0])
    return total


def _log_likelihood_of(outputs: Floats, bias: Floats, own: Own, x: Floats, log_likelihood: Sums) -> None:
    _log_likelihood(outputs, bias, own[0], x, log_likelihood)


@kernel
def _loss_gradient(
    outputs: Floats,
    bias: Floats,
    log_scale: Floats,
    x: Floats,
    weight: Sums,
    log_likelihood: Sums,
    d_bias: Floats,
    d_log_scale: Floats,
) -> float:
    number = outputs.dtype.type
    half, one, none = number(_HALF), number(1), number(0)
    precision, log_width, d_log_width, slope = _scales(log_scale)
    d_t = np.zeros(log_scale.size, log_scale.dtype)
    d_bias[:] = 0
    total = 0.0
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        of_row = number(weight[i])
        loss = none
        for j in range(outputs.shape[1]):
            away = x[row, j] - (outputs[i, j] + bias[j])
            upper, lower = (away + half) * precision[j], (away - half) * precision[j]
            # Factors, for a loop with branches does not become vector instructions.
            has_upper = none if x[row, j] > one - half else one
            has_lower = none if x[row, j] < half else one
            above, below = has_upper * sigmoid(-upper), has_lower * sigmoid(lower)
            loss += has_upper * softplus(-upper) + has_lower * softplus(lower) - has_upper * has_lower * log_width[j]
            d = of_row * (above - below) * precision[j]
            outputs[i, j] = d
            d_bias[j] += d
            d_t[j] += of_row * (upper * above - lower * below - has_upper * has_lower * d_log_width[j])
        log_likelihood[i] = -loss
        total -= np.float64(loss)
    for j in range(log_scale.size):
        d_log_scale[j] = d_t[j] * slope[j]
    return total


@kernel
def _log_likelihood(outputs: Floats, bias: Floats, log_scale: Floats, x: Floats, log_likelihood: Sums) -> None:
    number = outputs.dtype.type
    half, one, none = number(_HALF), number(1), number(0)
    precision, log_width, _, _ = _scales(log_scale)
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        loss = none
        for j in range(outputs.shape[1]):
            away = x[row, j] - (outputs[i, j] + bias[j])
            has_upper = none if x[row, j] > one - half else one
            has_lower = none if x[row, j] < half else one
            loss += has_upper * softplus(-(away + half) * precision[j])
            loss += has_lower * softplus((away - half) * precision[j]) - has_upper * has_lower * log_width[j]
        log_likelihood[i] = -loss


@kernel
def _scales(log_scale: Floats) -> tuple[Floats, Floats, Floats, Sums]:
    """Of each feature 1/s, log(1 - exp(-d/s)), its derivative by t, -(d/s) / (exp(d/s) - 1), and the bound's slope."""
    precision, log_width, d_log_width = np.empty((3, log_scale.size), log_scale.dtype)
    slope = np.empty(log_scale.size)
    for j in range(log_scale.size):
        u = min(max(np.float64(log_scale[j]), -60.0), 60.0)
        t = u + softplus(_LOW - u) - softplus(u - _HIGH)
        width = 2 * _HALF * math.exp(-t)
        precision[j] = math.exp(-t)
        log_width[j] = math.log(-math.expm1(-width))
        d_log_width[j] = -width / math.expm1(width)
        slope[j] = sigmoid(u - _LOW) * sigmoid(_HIGH - u) * (1.0 - math.exp(_LOW - _HIGH))
    return precision, log_width, d_log_width, slope


@kernel
def _means(outputs: Floats, bias: Floats, log_scale: Floats) -> None:
    """E[x] = d sum over k = 1 ... 255 of P(x >= k d) = d sum_k sigmoid((m - (k - 1/2) d) / s)."""
    number = outputs.dtype.type
    precision, _, _, _ = _scales(log_scale)
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            m, total = outputs[i, j] + bias[j], number(0)
            for k in range(1, _TOP + 1):
                total += sigmoid((m - number((k - 0.5) / _TOP)) * precision[j])
            outputs[i, j] = total / number(_TOP)


def _mean(outputs: Floats, bias: Floats, own: Own) -> Floats:
    _means(outputs, bias, own[0])
    return outputs


def _sample(outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
    """By the inverse of the distribution function, m + s log(u / (1 - u)), rounded to a level."""
    u = np.empty(outputs.shape)
    noise.uniform(u, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
    u += 2.0**-25
    precision, _, _, _ = _scales(own[0])
    x = (outputs + bias).astype(np.float64) + (np.log(u) - np.log1p(-u)) / precision
    return (np.round(np.clip(x, 0, 1) * _TOP) / _TOP).astype(outputs.dtype)
