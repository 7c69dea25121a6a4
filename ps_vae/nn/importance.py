"""Importance weights of several samples for each example, and the path derivative.

Of K samples u_k of an example, w_k = p(x|u_k) (p(u_k) / q(u_k|x))^beta, normalised over k to W_k.

    IWAE   L = -log 1/K sum_k w_k,    dL = -sum_k W_k dlog w_k                      Burda et al. (2016), equation 13
    path   u_k = mean + s noise_k depends on what the encoder says, and so does log q(u|x) at a given u. The mean
           over the noise of the latter's part, beta W_k dlog q(u_k|x), is also the mean of
           beta dW_k/du_k du_k, with dW_k/du_k = W_k (1 - W_k) dlog w_k/du_k, so that in all

               d to the encoder = -sum_k W_k c_k dlog w_k/du_k du_k,      c_k = 1 - beta + beta W_k

           (DReG: Tucker et al. 2019, equation 8, where beta is 1.) Where the W_k are not functions of the samples but
           1/K each, that part has the mean zero, and c_k = 1 (STL: Roeder et al. 2017).

    dlog q/du_j = -(u_j - mean_j) / s_j^2 = -noise_j / s_j
"""

import math

from ps_vae.jit import kernel
from ps_vae.nn.arrays import Floats, Sums
from ps_vae.nn.elementary import exp

__all__ = ["normalise", "to_path"]


def normalise(log_weight: Sums, rows: int, weight: Sums) -> None:
    """Overwrite `weight` (samples * rows,) with each row's w_k / sum_k w_k; sample k of row i is at k rows + i."""
    _normalise(log_weight, rows, weight)


def to_path(
    d_u: Floats, posterior: Floats, noise: Floats, weight: Sums, beta: float, *, weights_are_functions: bool
) -> None:
    """From the gradient of -sum_k W_k (log p(x|u_k) + beta log p(u_k)) with respect to the samples to that of the path.

    d_u         (samples * rows, latent), in place
    posterior   (rows, 2 latent)
    noise       (rows, samples * latent)
    weight      (samples * rows,): W_k
    weights_are_functions
                of the samples; 1/K where not
    """
    _to_path(d_u, posterior, noise, weight, beta, weights_are_functions)


@kernel
def _normalise(log_weight: Sums, rows: int, weight: Sums) -> None:
    for i in range(rows):
        top = -math.inf
        for k in range(i, log_weight.size, rows):
            # NaN is not above anything; it comes back by the exponential.
            top = max(top, log_weight[k])
        total = 0.0
        for k in range(i, log_weight.size, rows):
            weight[k] = math.exp(log_weight[k] - top)
            total += weight[k]
        for k in range(i, log_weight.size, rows):
            weight[k] /= total


@kernel
def _to_path(
    d_u: Floats, posterior: Floats, noise: Floats, weight: Sums, beta: float, weights_are_functions: bool
) -> None:
    number = d_u.dtype.type
    half = number(0.5)
    rows, latent = posterior.shape[0], d_u.shape[1]
    for k in range(d_u.shape[0] // rows):
        for i in range(rows):
            of_sample = weight[k * rows + i]
            share = number(beta * of_sample)
            scale = number(1.0 - beta + beta * of_sample if weights_are_functions else 1.0)
            for j in range(latent):
                away = noise[i, k * latent + j] * exp(-half * posterior[i, latent + j])
                d_u[k * rows + i, j] = scale * (d_u[k * rows + i, j] - share * away)
