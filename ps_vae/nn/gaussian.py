"""The diagonal Gaussian posterior: bounded log-variance, reparameterised samples, density, divergence from the prior.

A posterior is one array (rows, 2 latent): columns mean, then v = log-variance; gradients have the same form. Noise is
(rows, samples * latent), sample after sample; samples are (samples * rows, latent), sample k of row i in k rows + i.

    bound      v = b(u) = u + softplus(-20 - u) - softplus(u - 10)      u what the encoder gives
               b'(u)    = sigmoid(10 - u) sigmoid(u + 20) (1 - e^-30)
               between -20 and 10 for every u; the identity to 1e-4 from -10.7 to 0.78, less and less outside (b(5) =
               4.993, b(8) = 7.87); the slope is 1e-4 at -29 and 19, and in float32 zero from 97.4 on
    sample     z = mean + exp(v/2) noise
               dL/dmean = dL/dz,    dL/dv = dL/dz exp(v/2) noise / 2        summed over samples
    density    log q(z|x) = -1/2 sum_j (noise_j^2 + v_j + log(2 pi))
    divergence KL = sum_j KL_j,    KL_j = 1/2 (mean_j^2 + exp(v_j) - 1 - v_j)
               dKL/dmean = mean,    dKL/dv = (exp(v) - 1) / 2

Kingma & Welling (2014), section 2.4 and appendix B; the bound is ours.
All arrays are in C order and of one dtype, float32 or float64, but for the sums, which are float64.
"""

import math

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn.arrays import Floats, Sums
from ps_vae.nn.elementary import exp, expm1, sigmoid, softplus

__all__ = [
    "add_kl_gradient",
    "bound_posterior",
    "bound_posterior_backward",
    "kl_standard_normal",
    "log_posterior",
    "log_standard_normal",
    "reparameterise",
    "reparameterise_backward",
]

_LOG_2_PI = math.log(2 * math.pi)


def bound_posterior(posterior: Floats, bias: Floats, slope: Floats) -> None:
    """Add the bias and bound the log-variances, in place.

    posterior   (rows, 2 latent), from the encoder's last product to the posterior
    bias        (2 latent,)
    slope       (rows, latent), overwritten with b'(u)
    """
    _bound_posterior(posterior, bias, slope)


def bound_posterior_backward(d_posterior: Floats, slope: Floats, d_bias: Floats) -> None:
    """From the gradient with respect to the posterior to that of the encoder's last product, in place.

    d_posterior (rows, 2 latent)
    slope       (rows, latent) of `bound_posterior`
    d_bias      (2 latent,), overwritten
    """
    _bound_posterior_backward(d_posterior, slope, d_bias)


def reparameterise(posterior: Floats, noise: Floats, z: Floats) -> None:
    """Overwrite `z` (samples * rows, latent) with samples; `noise` (rows, samples * latent) is standard normal."""
    _reparameterise(posterior, noise, z)


def reparameterise_backward(d_z: Floats, posterior: Floats, noise: Floats, d_posterior: Floats) -> None:
    """Overwrite `d_posterior` (rows, 2 latent), given the gradient `d_z` (samples * rows, latent) of the samples."""
    _reparameterise_backward(d_z, posterior, noise, d_posterior)


def log_posterior(posterior: Floats, noise: Floats, log_density: Sums) -> None:
    """Overwrite `log_density` (samples * rows,) with log q of the samples that this noise makes, in nats."""
    _log_posterior(posterior, noise, log_density)


def log_standard_normal(z: Floats, log_density: Sums) -> None:
    """Overwrite `log_density` (rows,) with the standard normal's of each row of `z` (rows, latent), in nats."""
    _log_standard_normal(z, log_density)


def kl_standard_normal(posterior: Floats, kl: Sums) -> float:
    """Divergence from the standard normal in nats: `kl` (rows,) is overwritten, the sum over rows returned."""
    total: float = _kl_standard_normal(posterior, kl)
    return total


def add_kl_gradient(
    posterior: Floats, kl: Sums, weight: float, d_posterior: Floats, *, free: float = 0.0, capacity: float = 0.0
) -> None:
    """Add the gradient of a penalty on the divergence to `d_posterior` (rows, 2 latent).

    kl        (rows,), of `kl_standard_normal`
    weight    of the penalty, which is the divergence, or
    free      sum_j max(free, KL_j), in nats a dimension (Kingma et al. 2016, equation 15, for each example alone), or
    capacity  |KL - capacity|, in nats (Burgess et al. 2018, equation 8, for each example alone)
    """
    _add_kl_gradient(posterior, kl, weight, free, capacity, d_posterior)


@kernel
def _bound_posterior(posterior: Floats, bias: Floats, slope: Floats) -> None:
    number = posterior.dtype.type
    low, high, far = number(-20), number(10), number(100)
    height = number(1 - np.exp(-30.0))
    latent = slope.shape[1]
    for i in range(posterior.shape[0]):
        for j in range(latent):
            posterior[i, j] += bias[j]
        for j in range(latent):
            u = posterior[i, latent + j] + bias[latent + j]
            u = -far if u < -far else u  # b(u) no longer changes out there, but u - (u - 10) loses its digits
            u = far if u > far else u
            posterior[i, latent + j] = u + softplus(low - u) - softplus(u - high)
            slope[i, j] = sigmoid(high - u) * sigmoid(u - low) * height


@kernel
def _bound_posterior_backward(d_posterior: Floats, slope: Floats, d_bias: Floats) -> None:
    latent = slope.shape[1]
    d_bias[:] = 0
    for i in range(d_posterior.shape[0]):
        for j in range(latent):
            d_posterior[i, latent + j] *= slope[i, j]
        for j in range(2 * latent):
            d_bias[j] += d_posterior[i, j]


@kernel
def _reparameterise(posterior: Floats, noise: Floats, z: Floats) -> None:
    half = posterior.dtype.type(0.5)
    rows, latent = posterior.shape[0], z.shape[1]
    for k in range(z.shape[0] // rows):
        for i in range(rows):
            for j in range(latent):
                deviation = exp(half * posterior[i, latent + j])
                z[k * rows + i, j] = posterior[i, j] + deviation * noise[i, k * latent + j]


@kernel
def _reparameterise_backward(d_z: Floats, posterior: Floats, noise: Floats, d_posterior: Floats) -> None:
    half = posterior.dtype.type(0.5)
    rows, latent = posterior.shape[0], d_z.shape[1]
    for i in range(rows):
        for j in range(latent):
            d_posterior[i, latent + j] = d_z[i, j] * noise[i, j] * (half * exp(half * posterior[i, latent + j]))
        for j in range(latent):
            d_posterior[i, j] = d_z[i, j]
    for k in range(1, d_z.shape[0] // rows):
        for i in range(rows):
            for j in range(latent):
                d = d_z[k * rows + i, j]
                half_deviation = half * exp(half * posterior[i, latent + j])
                d_posterior[i, latent + j] += d * noise[i, k * latent + j] * half_deviation
            for j in range(latent):
                d_posterior[i, j] += d_z[k * rows + i, j]


@kernel
def _log_posterior(posterior: Floats, noise: Floats, log_density: Sums) -> None:
    rows, latent = posterior.shape[0], posterior.shape[1] // 2
    for i in range(rows):
        volume = 0.0
        for j in range(latent):
            volume += posterior[i, latent + j] + _LOG_2_PI
        for k in range(log_density.size // rows):
            squares = 0.0
            for j in range(latent):
                e = np.float64(noise[i, k * latent + j])
                squares += e * e
            log_density[k * rows + i] = -0.5 * (squares + volume)


@kernel
def _log_standard_normal(z: Floats, log_density: Sums) -> None:
    for i in range(z.shape[0]):
        squares = 0.0
        for j in range(z.shape[1]):
            squares += np.float64(z[i, j]) * np.float64(z[i, j])
        log_density[i] = -0.5 * (squares + z.shape[1] * _LOG_2_PI)


@kernel
def _kl_standard_normal(posterior: Floats, kl: Sums) -> float:
    latent = posterior.shape[1] // 2
    total = 0.0
    for i in range(posterior.shape[0]):
        row = posterior.dtype.type(0)
        for j in range(latent):
            mean, v = posterior[i, j], posterior[i, latent + j]
            row += mean * mean + (expm1(v) - v)
        kl[i] = 0.5 * row
        total += kl[i]
    return total


@kernel
def _add_kl_gradient(
    posterior: Floats, kl: Sums, weight: float, free: float, capacity: float, d_posterior: Floats
) -> None:
    latent = posterior.shape[1] // 2
    for i in range(posterior.shape[0]):
        of_row = -weight if capacity > 0.0 and kl[i] < capacity else weight
        beta = posterior.dtype.type(of_row)
        half_beta = posterior.dtype.type(0.5 * of_row)
        if free > 0.0:
            for j in range(latent):
                mean, v = posterior[i, j], posterior[i, latent + j]
                if 0.5 * (mean * mean + (expm1(v) - v)) > free:
                    d_posterior[i, j] += beta * mean
                    d_posterior[i, latent + j] += half_beta * expm1(v)
        else:
            for j in range(latent):
                d_posterior[i, j] += beta * posterior[i, j]
                d_posterior[i, latent + j] += half_beta * expm1(posterior[i, latent + j])
