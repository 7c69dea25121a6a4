"""Gaussian likelihoods with a learned standard deviation: one for all features, one each, or one from the decoder.

    m_j = the decoder's output + bias,      v_j = log sigma_j^2 = b_j(u_j)
    -log p(x|m, v) = 1/2 sum_j ((x_j - m_j)^2 exp(-v_j) + v_j + log(2 pi))
    d/dm_j = (m_j - x_j) exp(-v_j)
    d/dv_j = (1 - (x_j - m_j)^2 exp(-v_j)) / 2,       d/du_j = d/dv_j b_j'(u_j)

    gaussian-shared     u is one learned number          the optimum of a linear model is probabilistic PCA
    gaussian-feature    u is one learned number each     the optimum of a linear model is factor analysis
    gaussian-decoder    u_j is another output + bias     p(x|z) = N(mu(z), Sigma(z)), Sigma diagonal

Where the model can be exact (a column that never changes, rows that are there twice) the density has no bound, and v
would fall for ever. So v has a floor, a fact of the data and not of their unit:

    b_j(u) = u + softplus(f_j - u),     f_j = log(variance of feature j) - 16     (sigma_j >= 1/2981 of the data's)
                                        of gaussian-shared: of the mean variance over the features
    b_j'(u) = sigmoid(u - f_j)

smooth, so that there is a way back up. gaussian-decoder has a ceiling, too, 24 above the floor (sigma_j <= 55 of the
data's), that a batch unlike all others does not lead astray: b_j(u) = u + softplus(f_j - u) - softplus(u - f_j - 24),
as for the posterior. A feature without variance has that of its mean's hundredth part, or 1 where that is zero.
Linear models: Lucas et al. (2019); the floor is ours.
"""

import math

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Array, Floats, Rows, Sums
from ps_vae.nn.elementary import exp, expm1, sigmoid, softplus
from ps_vae.nn.likelihoods.gaussian import check_finite, mean_of
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own

__all__ = ["gaussian_decoder", "gaussian_feature", "gaussian_shared", "varies"]

_DEPTH, _HEIGHT = 16.0, 24.0
_HALF_LOG_2_PI = math.log(2 * math.pi) / 2


def gaussian_shared(features: int) -> Likelihood:
    """One output for each feature, the mean; `log_variance` (1,) is learned."""
    return _learned("gaussian-shared", features, 1)


def gaussian_feature(features: int) -> Likelihood:
    """One output for each feature, the mean; `log_variance` (features,) is learned."""
    return _learned("gaussian-feature", features, features)


def gaussian_decoder(features: int) -> Likelihood:
    """Two outputs for each feature: the mean, and u, which the log-variance is the bounded value of."""
    return Likelihood(
        name="gaussian-decoder",
        features=features,
        outputs=2 * features,
        own=(),
        facts=(("floor", features),),
        loss_gradient=_decoder_loss_gradient_of,
        log_likelihood=_decoder_log_likelihood_of,
        mean=lambda outputs, bias, own: mean_of(outputs[:, :features].copy(), bias[:features], own),
        sample=_decoder_sample,
        check_data=check_finite,
        initial=_decoder_initial,
    )


def _learned(name: str, features: int, size: int) -> Likelihood:
    def initial(means: Sums, variances: Sums) -> Initial:
        variances = _positive(means, variances)
        if size == 1:
            variances = variances.mean(keepdims=True)
        return Initial(np.array(means, dtype=np.float64), (np.log(variances), np.log(variances) - _DEPTH))

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
        check_data=check_finite,
        initial=initial,
    )


def _positive(means: Sums, variances: Sums) -> Sums:
    """The data's variances; of what never changes something that fits its size."""
    otherwise = np.where(means == 0, 1.0, np.square(0.01 * means))
    return np.where(varies(means, variances), variances, otherwise)


def varies(means: Sums, variances: Sums) -> Array:
    """Of each feature, whether its values differ by more than what float32 rounds them to."""
    is_more: Array = variances > np.square(1e-7 * means)
    return is_more


def _decoder_initial(means: Sums, variances: Sums) -> Initial:
    logs = np.log(_positive(means, variances))
    # The ceiling is felt a little already where the data's variance is.
    return Initial(np.concatenate([means, logs + np.logaddexp(0, _DEPTH - _HEIGHT)]), (logs - _DEPTH,))


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


def _decoder_loss_gradient_of(
    outputs: Floats, bias: Floats, own: Own, x: Floats, weight: Sums, log_likelihood: Sums, d_bias: Floats, d_own: Own
) -> float:
    d_own[0][:] = 0
    total: float = _decoder_loss_gradient(outputs, bias, own[0], x, weight, log_likelihood, d_bias)
    return total


def _decoder_log_likelihood_of(outputs: Floats, bias: Floats, own: Own, x: Floats, log_likelihood: Sums) -> None:
    _decoder_log_likelihood(outputs, bias, own[0], x, log_likelihood)


def _decoder_sample(outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
    features = bias.size // 2
    means, deviations = np.empty((2, len(outputs), features), outputs.dtype)
    _decoder_parameters(outputs, bias, own[0], means, deviations)
    x = np.empty_like(means)
    noise.standard_normal(x, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
    x *= deviations
    x += means
    return x


@kernel
def _decoder_loss_gradient(
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
def _decoder_log_likelihood(outputs: Floats, bias: Floats, floor: Floats, x: Floats, log_likelihood: Sums) -> None:
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
def _decoder_parameters(outputs: Floats, bias: Floats, floor: Floats, means: Floats, deviations: Floats) -> None:
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
