"""RMSprop: the gradient divided by the root of a moving mean of its square.

    g = scale * gradient
    v <- decay * v + (1 - decay) * g^2
    w <- w - rate * g / (sqrt(v) + epsilon)

Tieleman & Hinton (2012), lecture 6.5, as PyTorch documents `RMSprop` (there `decay` is called alpha; not centred, no
momentum, v = 0 at the start and no bias correction: the first steps are up to 1 / sqrt(1 - decay) times the rate).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ps_vae.jit import exact_kernel
from ps_vae.optim.optimizer import Optimizer, before, mean_gradient

__all__ = ["RMSPROP"]


@exact_kernel
def _rmsprop(
    weights: Any,
    gradient: Any,
    addend: Any,
    is_pair: bool,
    scale: Any,
    out: Any,
    mean_square: Any,
    rate: Any,
    decay: Any,
    rest: Any,
    epsilon: Any,
) -> None:
    for i in range(out.size):
        g = mean_gradient(gradient, addend, is_pair, scale, i)
        v = decay * mean_square[i] + rest * (g * g)
        mean_square[i] = v
        out[i] = before(weights, out, i) - rate * g / (np.sqrt(v) + epsilon)


def _coefficients(rate: float, step: int, hyperparameters: Mapping[str, float]) -> tuple[float, ...]:
    decay = hyperparameters["decay"]
    return rate, decay, 1.0 - decay, hyperparameters["epsilon"]


RMSPROP = Optimizer("rmsprop", ("mean_square",), {"decay": 0.99, "epsilon": 1e-8}, _coefficients, _rmsprop)
