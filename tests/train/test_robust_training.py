"""With a hostile minority of workers the model learns where steps take the median, not where they take the mean."""

import numpy as np
import pytest
from simulation.world import World
from small_run import Floats, small_config, small_data, small_weights

from ps_vae.data import gather
from ps_vae.errors import NumericalError
from ps_vae.ps.blocks import Block
from ps_vae.train.elbo import mean_elbo
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.update import update_rule
from ps_vae.vae.layout import ParameterLayout

ROWS = np.arange(200, dtype=np.int64)


def elbo(weights: Floats) -> float:
    layout, split = ParameterLayout(small_config().model), small_data().validation
    rows = ROWS[: len(split)]
    examples = gather(split, rows, np.empty((len(rows), split.features), np.float32))
    return mean_elbo(layout.bind(weights), examples, 0, rows)["elbo"]


def trained(aggregate: str, *, hostile: int) -> Floats:
    """Weights after some steps by four honest workers and so many hostile ones."""
    config = small_config(
        batch_size=64, microbatch=4, optimizer="sgd", learning_rate=0.005, steps=120, aggregate=aggregate
    )
    gradients, before = BlockGradient(config, small_data().train), small_weights(config)

    def microbatch(weights: Floats, step: int, index: int) -> Floats:
        (result,) = gradients(weights, step, [Block(index, index + 1)])
        gradients.buffers.give(result.gradient)
        return result.gradient.copy()

    world = World(
        size=before.size,
        shards=2,
        workers=4,
        microbatches=config.microbatches,
        steps=config.steps,
        update=update_rule(config),
        gradient=microbatch,
        initial=before.copy(),
        aggregate=aggregate,
        awaited=4 + hostile,
    )
    for _ in range(hostile):
        world.add_worker().spoils = lambda gradient, step, index: np.float32(-30.0) * gradient
    assert world.run().reason == "done"
    return world.weights


def test_without_anybody_hostile_mean_and_median_both_learn() -> None:
    start = elbo(small_weights(small_config()))
    assert elbo(trained("mean", hostile=0)) > start + 2.0
    assert elbo(trained("median", hostile=0)) > start + 2.0


@pytest.mark.parametrize("aggregate", ["median", "trimmed:0.35"])
def test_one_hostile_worker_of_five_does_not_keep_the_model_from_learning(aggregate: str) -> None:
    assert elbo(trained(aggregate, hostile=1)) > elbo(small_weights(small_config())) + 2.0


def test_one_hostile_worker_of_five_ruins_the_mean() -> None:
    with pytest.raises(NumericalError, match="the gradient is nan"):
        trained("mean", hostile=1)
