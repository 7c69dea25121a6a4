"""Gaussian likelihoods with a learned standard deviation: one for all features, or one each.

    m_j = the decoder's output + bias,      v_j = log sigma_j^2 = b_j(u_j)
    -log p(x|m, v) = 1/2 sum_j ((x_j - m_j)^2 exp(-v_j) + v_j + log(2 pi))
    d/dm_j = (m_j - x_j) exp(-v_j)
    d/dv_j = (1 - (x_j - m_j)^2 exp(-v_j)) / 2,       d/du_j = d/dv_j b_j'(u_j)

    gaussian-shared     u is one learned number          the optimum of a linear model is probabilistic PCA
    gaussian-feature    u is one learned number each     the optimum of a linear model is factor analysis

Where the model can be exact (a column that never changes, rows that are there twice) the density has no bound, and v
would fall for ever. So v has a floor, a fact of the data and not of their unit:

    b_j(u) = u + softplus(f_j - u),     f_j = log(variance of feature j) - 16     (sigma_j >= 1/2981 of the data's)
                                        of gaussian-shared: of the mean variance over the features
    b_j'(u) = sigmoid(u - f_j)

smooth, so that there is a way back up. A feature without variance has that of its mean's hundredth part, or 1 where
that is zero. Linear models: Lucas et al. (2019); the floor is ours.
"""

import math

import numpy as np

from ps_vae.errors import DataError
from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Array, Floats, Rows, Sums
from ps_vae.nn.elementary import exp, sigmoid, softplus
from ps_vae.nn.likelihoods.gaussian import mean_of, not_finite
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own

__all__ = ["DEPTH", "computable_variances", "gaussian_feature", "gaussian_shared", "usual_variances", "varies"]

DEPTH = 16.0
"""How far below the data's log-variance the floor is."""

_HALF_LOG_2_PI = math.log(2 * math.pi) / 2
# Of the features. Gradients are of the inverse deviation's size, at the floor 3,000^2 times as large, and are squared.
_LEAST, _MOST = 1e-10, 1e15


def gaussian_shared(features: int) -> Likelihood:
    """One output for each feature, the mean; `log_variance` (1,) is learned."""
    return _learned("gaussian-shared", features, 1)


def gaussian_feature(features: int) -> Likelihood:
    """One output for each feature, the mean; `log_variance` (features,) is learned."""
    return _learned("gaussian-feature", features, features)


def _learned(name: str, features: int, size: int) -> Likelihood:
    def initial(means: Sums, variances: Sums) -> Initial:
        variances = usual_variances(means, variances)
        if size == 1:
            variances = variances.mean(keepdims=True)
        logs = np.log(computable_variances(variances))
        return Initial(np.array(means, dtype=np.float64), (logs, logs - DEPTH))

    return Likelihood(
        name=name,
        features=features,
        outputs=features,
        own=(("log_variance", size),),
        facts=(("floor", size),),
        loss_gradient=_learned_loss_gradient_of,
        log_likelihood=_learned_log_likelihood_of,
        mean=mean_of,
        sample=_learned_sample,
        fault=not_finite,
        initial=initial,
    )


def usual_variances(means: Sums, variances: Sums) -> Sums:
    """The data's variances; of what never changes something that fits its size."""
    otherwise = np.where(means == 0, 1.0, np.square(0.01 * means))
    return np.where(varies(means, variances), variances, otherwise)


def computable_variances(variances: Sums) -> Sums:
    """The same; DataError where float32 has no room for a density with one of these variances and its gradient."""
    deviations = np.sqrt(variances)
    is_outside = (deviations < _LEAST) | (deviations > _MOST)
    if is_outside.any():
        feature = int(is_outside.argmax())
        whose = f"the values of column {feature}" if deviations.size > 1 else "the data"
        raise DataError(
            f"{whose} have a deviation of {deviations[feature]:.3g}, and one is learned from {_LEAST:g} to "
            f"{_MOST:g}; scale every column to a deviation of 1 (scikit-learn: StandardScaler)"
        )
    return variances


def varies(means: Sums, variances: Sums) -> Array:
    """Of each feature, whether its values differ by more than what float32 rounds them to."""
    is_more: Array = variances > np.square(1e-7 * means)
    return is_more


def _learned_loss_gradient_of(
    outputs: Floats, bias: Floats, own: Own, x: Floats, weight: Sums, log_likelihood: Sums, d_bias: Floats, d_own: Own
) -> float:
    d_own[1][:] = 0
    total: float = _learned_loss_gradient(outputs, bias, own[0], own[1], x, weight, log_likelihood, d_bias, d_own[0])
    return total


def _learned_log_likelihood_of(outputs: Floats, bias: Floats, own: Own, x: Floats, log_likelihood: Sums) -> None:
    _learned_log_likelihood(outputs, bias, own[0], own[1], x, log_likelihood)


def _learned_sample(outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
    learned, floor = own
    deviation = np.exp(0.5 * (learned + np.logaddexp(0, floor - learned)))
    x = np.empty_like(outputs)
    noise.standard_normal(x, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
    x *= deviation.astype(x.dtype)
    x += mean_of(outputs, bias, own)
    return x


@kernel
def _learned_loss_gradient(
    outputs: Floats,
    bias: Floats,
    learned: Floats,
    floor: Floats,
    x: Floats,
    weight: Sums,
    log_likelihood: Sums,
    d_bias: Floats,
    d_learned: Floats,
) -> float:
    number = outputs.dtype.type
    half = number(0.5)
    features = outputs.shape[1]
    v, precision, d_v = _variances(learned, floor, features)
    d_bias[:] = 0
    constant = 0.0
    for j in range(features):
        constant += 0.5 * v[j] + _HALF_LOG_2_PI
    total = 0.0
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        of_row = number(weight[i])
        squares = number(0)
        for j in range(features):
            difference = outputs[i, j] + bias[j] - x[row, j]
            scaled = difference * precision[j]
            square = difference * scaled
            squares += square
            d = of_row * scaled
            outputs[i, j] = d
            d_bias[j] += d
            d_v[j] += of_row * (half - half * square)
        log_likelihood[i] = -0.5 * squares - constant
        total += log_likelihood[i]
    d_learned[:] = 0
    for j in range(features):
        k = j if learned.size > 1 else 0
        d_learned[k] += d_v[j] * sigmoid(learned[k] - floor[k])
    return total


@kernel
def _learned_log_likelihood(
    outputs: Floats, bias: Floats, learned: Floats, floor: Floats, x: Floats, log_likelihood: Sums
) -> None:
    features = outputs.shape[1]
    v, precision, _ = _variances(learned, floor, features)
    constant = 0.0
    for j in range(features):
        constant += 0.5 * v[j] + _HALF_LOG_2_PI
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        squares = outputs.dtype.type(0)
        for j in range(features):
            difference = outputs[i, j] + bias[j] - x[row, j]
            squares += difference * difference * precision[j]
        log_likelihood[i] = -0.5 * squares - constant


@kernel
def _variances(learned: Floats, floor: Floats, features: int) -> tuple[Floats, Floats, Floats]:
    """Of each feature v, exp(-v), and room for the gradient with respect to v, zero."""
    v = np.empty(features, learned.dtype)
    precision = np.empty(features, learned.dtype)
    for j in range(features):
        k = j if learned.size > 1 else 0
        v[j] = learned[k] + softplus(floor[k] - learned[k])
        precision[j] = exp(-v[j])
    return v, precision, np.zeros(features, learned.dtype)
