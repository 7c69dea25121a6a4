"""Adagrad: a rate per parameter that falls with the sum of its squared gradients.

    g = scale * gradient
    s <- s + g^2
    w <- w - rate * g / (sqrt(s) + epsilon)

Duchi, Hazan & Singer (2011), diagonal form, as PyTorch documents `Adagrad` (no decay of the rate, s = 0 at the start).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ps_vae.jit import exact_kernel
from ps_vae.optim.optimizer import Optimizer, before, mean_gradient

__all__ = ["ADAGRAD"]


@exact_kernel
def _adagrad(
    weights: Any,
    gradient: Any,
    addend: Any,
    is_pair: bool,
    scale: Any,
    out: Any,
    sum_of_squares: Any,
    rate: Any,
    epsilon: Any,
) -> None:
    for i in range(out.size):
        g = mean_gradient(gradient, addend, is_pair, scale, i)
        s = sum_of_squares[i] + g * g
        sum_of_squares[i] = s
        out[i] = before(weights, out, i) - rate * g / (np.sqrt(s) + epsilon)


def _coefficients(rate: float, step: int, hyperparameters: Mapping[str, float]) -> tuple[float, ...]:
    return rate, hyperparameters["epsilon"]


ADAGRAD = Optimizer("adagrad", ("sum_of_squares",), {"epsilon": 1e-10}, _coefficients, _adagrad)
