"""Adam: a step per parameter of about the learning rate, whatever the gradient's scale.

    g = scale * gradient,    t = step + 1
    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g^2
    w <- w - rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

Kingma & Ba (2015), algorithm 1, as PyTorch documents `Adam` (no weight decay, no amsgrad). The two bias corrections are
the same for all parameters: they are computed once a step in float64 and folded into two factors.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ps_vae.jit import exact_kernel
from ps_vae.optim.optimizer import Optimizer, before, mean_gradient

__all__ = ["ADAM"]


@exact_kernel
def _adam(
    weights: Any,
    gradient: Any,
    addend: Any,
    is_pair: bool,
    scale: Any,
    out: Any,
    first_moment: Any,
    second_moment: Any,
    rate: Any,
    correction: Any,
    beta1: Any,
    rest1: Any,
    beta2: Any,
    rest2: Any,
    epsilon: Any,
) -> None:
    for i in range(out.size):
        g = mean_gradient(gradient, addend, is_pair, scale, i)
        m = beta1 * first_moment[i] + rest1 * g
        v = beta2 * second_moment[i] + rest2 * (g * g)
        first_moment[i] = m
        second_moment[i] = v
        out[i] = before(weights, out, i) - rate * m / (np.sqrt(v) * correction + epsilon)


def _coefficients(rate: float, step: int, hyperparameters: Mapping[str, float]) -> tuple[float, ...]:
    beta1, beta2 = hyperparameters["beta1"], hyperparameters["beta2"]
    corrected_rate = rate / (1.0 - beta1 ** (step + 1))
    correction = 1.0 / math.sqrt(1.0 - beta2 ** (step + 1))
    return corrected_rate, correction, beta1, 1.0 - beta1, beta2, 1.0 - beta2, hyperparameters["epsilon"]


ADAM = Optimizer(
    "adam",
    ("first_moment", "second_moment"),
    {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
    _coefficients,
    _adam,
)
