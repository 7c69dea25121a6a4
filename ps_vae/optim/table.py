"""The optimizers there are. Another one is a file beside this one and a line in `OPTIMIZERS`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ps_vae.errors import UsageError
from ps_vae.optim.adagrad import ADAGRAD
from ps_vae.optim.adam import ADAM
from ps_vae.optim.descent import MOMENTUM, NESTEROV, SGD
from ps_vae.optim.optimizer import Optimizer
from ps_vae.optim.rmsprop import RMSPROP

__all__ = ["OPTIMIZERS", "optimizer"]

OPTIMIZERS: Mapping[str, Optimizer] = {
    rule.name: rule
    for rule in (
        SGD,
        MOMENTUM,
        NESTEROV,
        ADAM,
        ADAGRAD,
        RMSPROP,
    )
}

_NONE_CHANGED: Mapping[str, float] = MappingProxyType({})


def optimizer(name: str, hyperparameters: Mapping[str, float] = _NONE_CHANGED) -> Optimizer:
    """The optimizer `name`, with `hyperparameters` in place of the defaults of the same names.

    Raises UsageError for a name or hyper-parameter that it does not know, and for a value that makes no sense: epsilon
    is positive, all others (means that forget, momentum) are at least 0 and below 1.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"there is no optimizer {name!r}; choose one of {', '.join(OPTIMIZERS)}")
    rule = OPTIMIZERS[name]
    for key, value in hyperparameters.items():
        _check(rule, key, value)
    return replace(rule, hyperparameters={**rule.hyperparameters, **hyperparameters})


def _check(rule: Optimizer, key: str, value: float) -> None:
    if key not in rule.hyperparameters:
        known = ", ".join(rule.hyperparameters) or "no hyper-parameter"
        raise UsageError(f"{rule.name} has no hyper-parameter {key!r}; it knows {known}")
    if key == "epsilon":
        # below the smallest normal float32 it could be flushed to zero, and 0 / 0 is not a number
        if not (math.isfinite(value) and value >= 1e-37):
            raise UsageError(f"epsilon of {rule.name} is {value}; it has to be positive, at least 1e-37")
    elif not 0.0 <= value < 1.0:
        raise UsageError(f"{key} of {rule.name} is {value}; it has to be at least 0 and below 1")
