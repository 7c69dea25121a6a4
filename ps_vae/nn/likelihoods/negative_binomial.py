"""Negative binomial likelihood of counts that vary more than a Poisson's: mean mu from the decoder, dispersion learned.

    eta = b(outputs + bias) = log mu, as in `poisson`,      rho = log r, one learned number for each feature
    variance = mu + mu^2 / r
    -log p(x) = sum_j log G(r) - log G(x + r) + log(x!) + r softplus(eta - rho) + x softplus(rho - eta)
    d/deta    = r sigmoid(eta - rho) - x sigmoid(rho - eta)
    d/drho    = r (psi(r) - psi(x + r) + softplus(eta - rho)) - d/deta

G is the gamma function, psi its logarithm's derivative (the form of scVI, Lopez et al. 2018). rho is bounded to
(-12, 12), smoothly, as the posterior's log-variance is (`ps_vae.nn.gaussian`): where the data have no more variance
than a Poisson's it would grow for ever.
"""

import math

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn import noise
from ps_vae.nn.arrays import Floats, Rows, Sums
from ps_vae.nn.elementary import exp, sigmoid, softplus
from ps_vae.nn.likelihoods.counts import HIGHEST, count_at, log_factorials, no_count
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own
from ps_vae.nn.likelihoods.poisson import poisson

__all__ = ["negative_binomial"]

_BOUND = 12.0


def negative_binomial(features: int) -> Likelihood:
    """One output for each feature: the logarithm of its mean; `log_dispersion` (features,) is learned."""
    rates = poisson(features)

    def initial(means: Sums, variances: Sums) -> Initial:
        """By the moments: r = mu^2 / (variance - mu), between 1/100 and 100."""
        beyond = np.maximum(variances - means, 1e-12)
        dispersion = np.clip(np.square(means) / beyond, 0.01, 100.0)
        return Initial(rates.initial(means, variances).bias, (np.log(dispersion),))

    def sample(outputs: Floats, bias: Floats, own: Own, *, seed: int, step: int, rows: Rows) -> Floats:
        means = rates.mean(outputs, bias, ())
        u = np.empty_like(means)
        noise.uniform(u, seed=seed, stream=noise.Stream.OBSERVATION, step=step, rows=rows)
        _invert(u, means, own[0])
        return means

    return Likelihood(
        name="negative-binomial",
        features=features,
        outputs=features,
        own=(("log_dispersion", features),),
        loss_gradient=_loss_gradient_of,
        log_likelihood=_log_likelihood_of,
        mean=rates.mean,
        sample=sample,
        fault=no_count,
        initial=initial,
    )


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
    learned: Floats,
    x: Floats,
    weight: Sums,
    log_likelihood: Sums,
    d_bias: Floats,
    d_learned: Floats,
) -> float:
    number = outputs.dtype.type
    highest = number(HIGHEST)
    features = x.shape[1]
    rho, r, slope = _dispersions(learned)
    d_rho = np.zeros(features)
    d_bias[:] = 0
    total = 0.0
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        of_row = number(weight[i])
        loss = 0.0
        for j in range(features):
            a = outputs[i, j] + bias[j]
            eta = a - softplus(a - highest)
            count = x[row, j]
            above = softplus(eta - rho[j])
            # Of large counts nearly all of this is taken away again by the gamma functions.
            loss += np.float64(r[j]) * np.float64(above) + np.float64(count) * np.float64(softplus(rho[j] - eta))
            d_eta = r[j] * sigmoid(eta - rho[j]) - count * sigmoid(rho[j] - eta)
            d = of_row * d_eta * sigmoid(highest - a)
            outputs[i, j] = d
            d_bias[j] += d
            d_rho[j] += weight[i] * (r[j] * above - d_eta)
        log_likelihood[i] = -loss - _gammas(x[row], r, d_rho, weight[i])
        total += log_likelihood[i]
    for j in range(features):
        d_learned[j] = d_rho[j] * slope[j]
    return total


@kernel
def _log_likelihood(outputs: Floats, bias: Floats, learned: Floats, x: Floats, log_likelihood: Sums) -> None:
    highest = outputs.dtype.type(HIGHEST)
    rho, r, _ = _dispersions(learned)
    unused = np.zeros(x.shape[1])
    for i in range(outputs.shape[0]):
        row = i % x.shape[0]
        loss = 0.0
        for j in range(x.shape[1]):
            a = outputs[i, j] + bias[j]
            eta = a - softplus(a - highest)
            loss += np.float64(r[j]) * np.float64(softplus(eta - rho[j])) + np.float64(x[row, j]) * np.float64(
                softplus(rho[j] - eta)
            )
        log_likelihood[i] = -loss - _gammas(x[row], r, unused, 0.0)


@kernel
def _gammas(counts: Floats, r: Floats, d_rho: Sums, weight: float) -> float:
    """Of one example the terms with gamma functions, which most counts, being zero, do not have; added to d_rho."""
    total = log_factorials(counts)
    for j in range(counts.size):
        if counts[j] > 0:
            dispersion = np.float64(r[j])
            total += math.lgamma(dispersion) - math.lgamma(counts[j] + dispersion)
            if weight != 0.0:
                d_rho[j] += weight * dispersion * (_digamma(dispersion) - _digamma(counts[j] + dispersion))
    return total


@kernel
def _digamma(x: float) -> float:
    """psi(x) for x > 0, to 1e-13: psi(x) = psi(x + 1) - 1/x up to 10, then the asymptotic series (DLMF 5.11.2)."""
    value = 0.0
    while x < 10.0:
        value -= 1.0 / x
        x += 1.0
    z = 1.0 / (x * x)
    series = z * (1 / 12 - z * (1 / 120 - z * (1 / 252 - z * (1 / 240 - z * (1 / 132 - z * (691 / 32760))))))
    return value + math.log(x) - 0.5 / x - series


@kernel
def _dispersions(learned: Floats) -> tuple[Floats, Floats, Floats]:
    """rho, r = exp(rho) and the derivative of the bound."""
    number = learned.dtype.type
    bound, far = number(_BOUND), number(100)
    rho, r, slope = np.empty_like(learned), np.empty_like(learned), np.empty_like(learned)
    for j in range(learned.size):
        u = min(max(learned[j], -far), far)
        rho[j] = u + softplus(-bound - u) - softplus(u - bound)
        r[j] = exp(rho[j])
        slope[j] = sigmoid(bound - u) * sigmoid(u + bound)
    return rho, r, slope


@kernel
def _invert(u: Floats, means: Floats, learned: Floats) -> None:
    """means become the counts into whose shares of [0, 1) the uniforms fall."""
    _, dispersions, _ = _dispersions(learned)
    for i in range(means.shape[0]):
        for j in range(means.shape[1]):
            mean, r = np.float64(means[i, j]), np.float64(dispersions[j])
            slope = mean / (r + mean)
            mode = int(mean * (r - 1.0) / r) if r > 1.0 else 0
            logarithm = math.lgamma(mode + r) - math.lgamma(r) - math.lgamma(mode + 1.0)
            logarithm += r * math.log(r / (r + mean))
            if mode > 0:
                logarithm += mode * math.log(slope)
            means[i, j] = count_at(np.float64(u[i, j]), mode, math.exp(logarithm), slope, slope * r)
