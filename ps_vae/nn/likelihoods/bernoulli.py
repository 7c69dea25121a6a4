"""Bernoulli likelihood in logit space; x anywhere in [0, 1].

    a = outputs + bias
    -log p(x|a) = sum_j softplus(a_j) - a_j x_j,     softplus(a) = max(a, 0) + log(1 + exp(-|a|))
    d/da_j      = sigmoid(a_j) - x_j

For x strictly between 0 and 1 this is the usual cross-entropy with grey targets, not a normalised density;
continuous-bernoulli is one.
"""

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Array, Floats, Rows, Sums
from ps_vae.nn.elementary import sigmoid, softplus
from ps_vae.nn.likelihoods.fault import Fault, first_outside, wrong_value
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own, without_own

__all__ = ["bernoulli"]

_RAREST = 0.001  # mean of a pixel that is never on, as in Burda et al. (2016), so that its logit is finite


def bernoulli(features: int) -> Likelihood:
    """One output for each feature: the logit of the probability of a one."""
    loss_gradient, log_likelihood = without_own(_loss_gradient, _log_likelihood)
    return Likelihood(
        name="bernoulli",
        features=features,
        outputs=features,
        loss_gradient=loss_gradient,
        log_likelihood=log_likelihood,
        mean=_mean,
        sample=_sample,
        fault=_fault,
        initial=lambda means, variances: Initial(_logits(means)),
    )


@kernel
def _loss_gradient(
    outputs: Floats, bias: Floats, x: Floats, weight: Sums, log_likelihood: Sums, d_bias: Floats
) -> float:
    total = 0.0
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        of_row = outputs.dtype.type(weight[i])
        loss = outputs.dtype.type(0)
        for j in range(outputs.shape[1]):
            a = outputs[i, j] + bias[j]
            loss += softplus(a) - a * x[row, j]
            d = of_row * (sigmoid(a) - x[row, j])
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
            loss += softplus(a) - a * x[row, j]
        log_likelihood[i] = -loss


@kernel
def _probabilities(outputs: Floats, bias: Floats) -> None:
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            outputs[i, j] = sigmoid(outputs[i, j] + bias[j])


def _mean(outputs: Floats, bias: Floats, own: Own) -> Floats:
    _probabilities(outputs, bias)
    return outputs


def _sample(outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
    probabilities = _mean(outputs, bias, own)
    noise.bernoulli(probabilities, probabilities, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
    return probabilities


def _fault(data: Array) -> Fault | None:
    if (place := first_outside(data, 0, 1)) is None:
        return None
    why = "the Bernoulli likelihood is for data in [0, 1]; scale the data or use the gaussian likelihood"
    return wrong_value(data, place, why)


def _logits(means: Sums) -> Sums:
    means = np.clip(means, _RAREST, 1 - _RAREST)
    return np.log(means) - np.log1p(-means)
