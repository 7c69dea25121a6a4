"""Categorical and multinomial likelihoods: shares of all features together, from the decoder.

    a = outputs + bias,     log pi_j = a_j - log sum_k exp(a_k)
    -log p(x|a) = -sum_j x_j log pi_j - log n! + sum_j log x_j!,     n = sum_j x_j
    d/da_j      = n pi_j - x_j

categorical   x is one-hot, one variable with as many values as there are features, and n is 1
multinomial   x are counts, such as how often a user saw each item (Liang et al. 2018, equation 2); n belongs to the x
              and is not modelled: means and samples are those of a single draw, shares and one-hot rows
"""

import math
from collections.abc import Callable

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Array, Floats, Rows, Sums
from ps_vae.nn.elementary import exp
from ps_vae.nn.likelihoods.counts import log_factorials, no_count
from ps_vae.nn.likelihoods.fault import Fault
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own, without_own

__all__ = ["categorical", "multinomial"]

_RAREST = 1e-4  # together, the shares of the values that are never seen


def categorical(features: int) -> Likelihood:
    """One output for each value: the logarithm of its share, up to a constant."""
    return _shares("categorical", features, _not_one_hot)


def multinomial(features: int) -> Likelihood:
    """One output for each feature: the logarithm of its share, up to a constant."""
    return _shares("multinomial", features, no_count)


def _shares(name: str, features: int, fault: Callable[[Array], Fault | None]) -> Likelihood:
    loss_gradient, log_likelihood = without_own(_loss_gradient, _log_likelihood)
    return Likelihood(
        name=name,
        features=features,
        outputs=features,
        loss_gradient=loss_gradient,
        log_likelihood=log_likelihood,
        mean=_mean,
        sample=_sample,
        fault=fault,
        initial=_initial,
    )


def _initial(means: Sums, variances: Sums) -> Initial:
    shares = np.maximum(means / max(float(means.sum()), 1e-30), _RAREST / means.size)
    return Initial(np.log(shares / shares.sum()))


def _not_one_hot(data: Array) -> Fault | None:
    is_wrong = ((data != 0) & (data != 1)).any(axis=1) | (data.sum(axis=1) != 1)
    if not is_wrong.any():
        return None
    row = int(np.argmax(is_wrong))
    if data.shape[1] == 1:
        hint = "write one column for each value, with a 1 where it is that one (scikit-learn: OneHotEncoder)"
    elif ((data == 0) | (data == 1)).all():
        hint = "for columns that are 0 or 1 independently of one another take bernoulli"
    else:
        hint = "for counts take multinomial or poisson, for other numbers gaussian-feature"
    return Fault("not one-hot", row, f"the categorical likelihood is for a single 1 in a row of zeros; {hint}")


@kernel
def _loss_gradient(
    outputs: Floats, bias: Floats, x: Floats, weight: Sums, log_likelihood: Sums, d_bias: Floats
) -> float:
    number = outputs.dtype.type
    total = 0.0
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        row = x[i % x.shape[0]]
        log_likelihood[i] = _log_probability(outputs[i], bias, row)
        total += log_likelihood[i]
        count = number(0)
        for j in range(row.size):
            count += row[j]
        shares = _to_shares(outputs[i], bias)
        for j in range(row.size):
            d = number(weight[i]) * (count * shares[j] - row[j])
            outputs[i, j] = d
            d_bias[j] += d
    return total


@kernel
def _log_likelihood(outputs: Floats, bias: Floats, x: Floats, log_likelihood: Sums) -> None:
    for i in range(outputs.shape[0]):
        log_likelihood[i] = _log_probability(outputs[i], bias, x[i % x.shape[0]])


@kernel
def _log_probability(outputs: Floats, bias: Floats, x: Floats) -> float:
    top = _top(outputs, bias)
    # In float64, for with many draws an error of the total counts as often, and x log x! takes most of the sum away.
    total, product, count = 0.0, 0.0, 0.0
    for j in range(x.size):
        total += exp(np.float64(outputs[j] + bias[j] - top))
    for j in range(x.size):
        product += np.float64(x[j]) * np.float64(outputs[j] + bias[j] - top)
        count += np.float64(x[j])
    gammas = math.lgamma(count + 1.0) if count > 1 else 0.0
    return product - count * math.log(total) + gammas - log_factorials(x)


@kernel
def _top(outputs: Floats, bias: Floats) -> float:
    top = outputs[0] + bias[0]
    for j in range(outputs.size):
        a = outputs[j] + bias[j]
        # NaN is not below anything; it stays in the sums.
        top = a if a > top else top
    return top


@kernel
def _to_shares(outputs: Floats, bias: Floats) -> Floats:
    """The outputs as pi, in place."""
    top, total = _top(outputs, bias), outputs.dtype.type(0)
    for j in range(outputs.size):
        outputs[j] = exp(outputs[j] + bias[j] - top)
        total += outputs[j]
    for j in range(outputs.size):
        outputs[j] /= total
    return outputs


@kernel
def _all_to_shares(outputs: Floats, bias: Floats) -> None:
    for i in range(outputs.shape[0]):
        _to_shares(outputs[i], bias)


def _mean(outputs: Floats, bias: Floats, own: Own) -> Floats:
    _all_to_shares(outputs, bias)
    return outputs


def _sample(outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
    """One-hot, at the value into whose share of [0, 1) a uniform falls."""
    ends = np.cumsum(_mean(outputs, bias, own).astype(np.float64), axis=1)
    u = np.empty((len(outputs), 1))
    noise.uniform(u, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
    chosen = np.minimum((ends <= u * ends[:, -1:]).sum(axis=1), ends.shape[1] - 1)
    outputs[:] = 0
    outputs[np.arange(len(outputs)), chosen] = 1
    return outputs
