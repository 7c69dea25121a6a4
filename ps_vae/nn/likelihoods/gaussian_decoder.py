"""The Gaussian likelihood whose mean and standard deviation both come from the decoder: p(x|z) = N(mu(z), Sigma(z)).

The formulas are those of `gaussian_learned`, where u_j is another output of the decoder plus a bias, and v_j has a
ceiling, too, 24 above the floor (sigma_j <= 55 of the data's), that a batch unlike all others does not lead astray:

    v_j = b_j(u_j) = u_j + softplus(f_j - u_j) - softplus(u_j - f_j - 24),     f_j as for gaussian-feature
"""

import math

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Floats, Rows, Sums
from ps_vae.nn.elementary import exp, expm1, sigmoid, softplus
from ps_vae.nn.likelihoods.gaussian import mean_of, not_finite
from ps_vae.nn.likelihoods.gaussian_learned import DEPTH, computable_variances, usual_variances
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own

__all__ = ["gaussian_decoder"]

_HEIGHT = 24.0
_HALF_LOG_2_PI = math.log(2 * math.pi) / 2


def gaussian_decoder(features: int) -> Likelihood:
    """Two outputs for each feature: the mean, and u, which the log-variance is the bounded value of."""
    return Likelihood(
        name="gaussian-decoder",
        features=features,
        outputs=2 * features,
        facts=(("floor", features),),
        loss_gradient=_loss_gradient_of,
        log_likelihood=_log_likelihood_of,
        mean=lambda outputs, bias, own: mean_of(outputs[:, :features].copy(), bias[:features], own),
        sample=_sample,
        fault=not_finite,
        initial=_initial,
    )


def _initial(means: Sums, variances: Sums) -> Initial:
    logs = np.log(computable_variances(usual_variances(means, variances)))
    # The ceiling is felt a little already where the data's variance is.
    return Initial(np.concatenate([means, logs + np.logaddexp(0, DEPTH - _HEIGHT)]), (logs - DEPTH,))


def _loss_gradient_of(
    outputs: Floats, bias: Floats, own: Own, x: Floats, weight: Sums, log_likelihood: Sums, d_bias: Floats, d_own: Own
) -> float:
    d_own[0][:] = 0
    total: float = _loss_gradient(outputs, bias, own[0], x, weight, log_likelihood, d_bias)
    return total


def _log_likelihood_of(outputs: Floats, bias: Floats, own: Own, x: Floats, log_likelihood: Sums) -> None:
    _log_likelihood(outputs, bias, own[0], x, log_likelihood)


def _sample(outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
    features = bias.size // 2
    means, deviations = np.empty((2, len(outputs), features), outputs.dtype)
    _parameters(outputs, bias, own[0], means, deviations)
    x = np.empty_like(means)
    noise.standard_normal(x, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
    x *= deviations
    x += means
    return x


@kernel
def _loss_gradient(
    outputs: Floats, bias: Floats, floor: Floats, x: Floats, weight: Sums, log_likelihood: Sums, d_bias: Floats
) -> float:
    number = outputs.dtype.type
    half, height = number(0.5), number(_HEIGHT)
    features = x.shape[1]
    d_bias[:] = 0
    total = 0.0
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        of_row = number(weight[i])
        loss = number(0)
        for j in range(features):
            v, slope = _bounded(outputs[i, features + j] + bias[features + j], floor[j], height)
            difference = outputs[i, j] + bias[j] - x[row, j]
            scaled = difference * exp(-v)
            square = difference * scaled
            loss += half * (square + v)
            d_mean = of_row * scaled
            d_u = of_row * (half - half * square) * slope
            outputs[i, j] = d_mean
            outputs[i, features + j] = d_u
            d_bias[j] += d_mean
            d_bias[features + j] += d_u
        log_likelihood[i] = -loss - _HALF_LOG_2_PI * features
        total += log_likelihood[i]
    return total


@kernel
def _log_likelihood(outputs: Floats, bias: Floats, floor: Floats, x: Floats, log_likelihood: Sums) -> None:
    number = outputs.dtype.type
    half, height = number(0.5), number(_HEIGHT)
    features = x.shape[1]
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        loss = number(0)
        for j in range(features):
            v, _ = _bounded(outputs[i, features + j] + bias[features + j], floor[j], height)
            difference = outputs[i, j] + bias[j] - x[row, j]
            loss += half * (difference * difference * exp(-v) + v)
        log_likelihood[i] = -loss - _HALF_LOG_2_PI * features


@kernel
def _parameters(outputs: Floats, bias: Floats, floor: Floats, means: Floats, deviations: Floats) -> None:
    half, height = outputs.dtype.type(0.5), outputs.dtype.type(_HEIGHT)
    features = means.shape[1]
    for i in range(means.shape[0]):
        for j in range(features):
            v, _ = _bounded(outputs[i, features + j] + bias[features + j], floor[j], height)
            means[i, j] = outputs[i, j] + bias[j]
            deviations[i, j] = exp(half * v)


@kernel
def _bounded(u, floor, height):  # type: ignore[no-untyped-def]
    """b(u) and, with a = u - floor, b'(u) = sigmoid(a) - sigmoid(a - height)

    = sigmoid(a) sigmoid(height - a) (1 - e^-height), where nothing cancels.
    """
    far = height + height + height
    above = u - floor
    # Out there b no longer changes, and the difference of large numbers loses its digits.
    above = -far if above < -far else above
    above = far if above > far else above
    slope = sigmoid(above) * sigmoid(height - above) * -expm1(-height)
    return floor + above + softplus(-above) - softplus(above - height), slope
