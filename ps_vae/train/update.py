"""The update rule that a shard is given: an optimizer, a schedule and the batch size, bound together."""

import numpy as np
import numpy.typing as npt

from ps_vae.optim.table import optimizer
from ps_vae.ps.shard import ShardState, Update
from ps_vae.train.config import RunConfig

__all__ = ["fresh_state", "update_rule"]

Vector = npt.NDArray[np.float32]


def update_rule(config: RunConfig) -> Update:
    """One step from a sum over the batch: divide by the batch size, apply the optimizer at the version's rate."""
    rule, rates, scale = optimizer(config.optimizer), config.rates(), 1.0 / config.batch_size

    def update(weights: Vector, gradient: Vector, state: dict[str, Vector], version: int, out: Vector) -> None:
        # The kernel is compiled for arrays that may be written; what came from the wire may not.
        gradient = gradient if gradient.flags.writeable else gradient.copy()
        weights = weights if weights.flags.writeable else weights.copy()
        rule.update(weights, gradient, scale, state, rates.rate_at(version), version, out)

    return update


def fresh_state(config: RunConfig, weights: Vector) -> ShardState:
    """Version 0 of a run."""
    return ShardState(0, weights, optimizer(config.optimizer).initial_state(weights.size))
