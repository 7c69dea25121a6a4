"""The update rule that a shard is given: an optimizer, a schedule and the batch size, bound together.

Where a step is applied block by block, a block of the share f of a step is an update of its own, with the mean gradient
over its rows and a smaller rate, so that the updates of a step move the weights as far as one update would: f times the
rate for descent with or without momentum (Goyal et al. 2017), sqrt(f) times for the adaptive rules, which divide by the
root of a second moment that grows with the noise of a smaller batch (Malladi et al. 2022).

A block's gradient was computed before the k updates that others made meanwhile. Adam and the momentum methods bear that
badly: their rate is near the edge of stability, which a delay lowers. So workers get, instead of the weights w, where
these are expected to be by then, w + k (w - w_before), w_before the weights before the last update (after the weight
prediction of Chen et al. 2018, arXiv:1809.02839, with the last update in place of the velocity). A gradient much staler
than usual, of a worker that was held up, counts for less (Zhang et al. 2016, staleness-aware descent): its mean is
multiplied by the shard's trust. In a synchronous run with a delay of a step k is 1: the run is still the sequential one
with such gradients, whoever computes it.

Test ELBO on MNIST, 784-400-20-400-784, Adam 1e-3, 7 epochs of batches of 128, without a delay: -107.07. As thirds of
steps with a delay of two: -109.05 at a third of the rate; -107.93 ahead; -107.29 ahead at the root of a third. Batches
of 256, 20 epochs: -105.12 without a delay; --delay 1: -109.89, -105.81 ahead.
"""

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.jit import exact_kernel
from ps_vae.optim.optimizer import Optimizer
from ps_vae.optim.table import optimizer
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.state import ShardState
from ps_vae.ps.update import LookAhead, Moment, Update
from ps_vae.train.config import RunConfig
from ps_vae.train.spread import spread

__all__ = ["fresh_state", "look_ahead_rule", "shard_rule", "update_rule"]

Vector = npt.NDArray[np.float32]

_WORTH_TWO_CORES = 1 << 18  # elements; fewer are updated before the second core has woken up

# Their updates change direction slowly, so that the last one tells of the next ones.
_STEADY = ("momentum", "nesterov", "adam")
_ADAPTIVE = ("adam", "adagrad", "rmsprop")


def update_rule(config: RunConfig) -> Update:
    """One update from a sum over examples: divide by their number, apply the optimizer at the version's rate.

    Where workers take local steps: from a sum over their trajectories, by the outer optimizer at its rate.
    """
    rule, rate_at = _rule(config), _rate(config)
    terms = config.microbatches if config.local_steps else config.batch_size
    power = 0.5 if rule.name in _ADAPTIVE else 1.0

    def update(
        weights: Vector, parts: tuple[Vector, ...], state: dict[str, Vector], moment: Moment, out: Vector
    ) -> None:
        # The kernel is compiled for arrays that may be written to, which one made of bytes may not.
        gradient, *others = (part if part.flags.writeable else part.copy() for part in parts)
        weights = weights if weights.flags.writeable else weights.copy()
        scale = moment.trust / (terms * moment.share)
        rate = rate_at(moment.version) * moment.share**power
        rule.update(weights, gradient, scale, state, rate, moment.updates, out, *others)

    return update


def shard_rule(config: RunConfig) -> Update:
    """The rule as a shard uses it: on two cores where the run leaves them idle."""
    rule = update_rule(config)
    is_idle_meanwhile = parse_consistency(config.consistency).is_synchronous and len(os.sched_getaffinity(0)) > 1
    return spread(rule, _WORTH_TWO_CORES) if is_idle_meanwhile else rule


def look_ahead_rule(config: RunConfig) -> LookAhead | None:
    """What stale gradients are computed on; None where the optimizer's last update tells nothing of the next."""
    return _straight_on if _rule(config).name in _STEADY else None


def fresh_state(config: RunConfig, weights: Vector) -> ShardState:
    """Version 0 of a run."""
    return ShardState(0, weights, _rule(config).initial_state(weights.size))


def _rule(config: RunConfig) -> Optimizer:
    """The server's optimizer."""
    if config.local_steps:
        return optimizer("nesterov", {"momentum": config.outer_momentum})
    return optimizer(config.optimizer)


def _rate(config: RunConfig) -> Callable[[int], float]:
    """Its rate by version."""
    return (lambda version: config.outer_rate) if config.local_steps else config.rates().rate_at


def _straight_on(before: Vector, weights: Vector, updates: float, out: Vector) -> None:
    _extrapolate(before, weights, np.float32(updates), out)


@exact_kernel
def _extrapolate(before, weights, updates, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = weights[i] + updates * (weights[i] - before[i])
