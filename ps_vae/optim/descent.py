"""Gradient descent: plain, with momentum, and with Nesterov's momentum.

    g = scale * gradient                                   the mean over the batch
    sgd         w <- w - rate * g
    momentum    u <- mu * u + g,    w <- w - rate * u
    nesterov    u <- mu * u + g,    w <- w - rate * (g + mu * u)

Polyak (1964); Sutskever, Martens, Dahl & Hinton (2013), in the form that PyTorch documents for `SGD` (dampening 0): the
rate multiplies the velocity when it is applied, not when it is collected, so a change of rate acts at once.
"""

from collections.abc import Mapping
from typing import Any

from ps_vae.jit import exact_kernel
from ps_vae.optim.optimizer import Optimizer, before, mean_gradient

__all__ = ["MOMENTUM", "NESTEROV", "SGD"]


@exact_kernel
def _sgd(weights: Any, gradient: Any, addend: Any, is_pair: bool, scale: Any, out: Any, rate: Any) -> None:
    for i in range(out.size):
        out[i] = before(weights, out, i) - rate * mean_gradient(gradient, addend, is_pair, scale, i)


@exact_kernel
def _momentum(
    weights: Any, gradient: Any, addend: Any, is_pair: bool, scale: Any, out: Any, velocity: Any, rate: Any, mu: Any
) -> None:
    for i in range(out.size):
        u = mu * velocity[i] + mean_gradient(gradient, addend, is_pair, scale, i)
        velocity[i] = u
        out[i] = before(weights, out, i) - rate * u


@exact_kernel
def _nesterov(
    weights: Any, gradient: Any, addend: Any, is_pair: bool, scale: Any, out: Any, velocity: Any, rate: Any, mu: Any
) -> None:
    for i in range(out.size):
        g = mean_gradient(gradient, addend, is_pair, scale, i)
        u = mu * velocity[i] + g
        velocity[i] = u
        out[i] = before(weights, out, i) - rate * (g + mu * u)


def _rate(rate: float, step: int, hyperparameters: Mapping[str, float]) -> tuple[float, ...]:
    return (rate,)


def _rate_and_momentum(rate: float, step: int, hyperparameters: Mapping[str, float]) -> tuple[float, ...]:
    return rate, hyperparameters["momentum"]


SGD = Optimizer("sgd", (), {}, _rate, _sgd)
MOMENTUM = Optimizer("momentum", ("velocity",), {"momentum": 0.9}, _rate_and_momentum, _momentum)
NESTEROV = Optimizer("nesterov", ("velocity",), {"momentum": 0.9}, _rate_and_momentum, _nesterov)
