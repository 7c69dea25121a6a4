"""The model's gradient through coordinator, shards and workers, without sockets: what comes out is what went in."""

from typing import Any

import numpy as np
import pytest
from simulation.network import Network
from simulation.world import World
from small_run import Floats, small_config, small_data, small_weights

from ps_vae.ps.blocks import Block
from ps_vae.ps.update import Moment
from ps_vae.train.config import RunConfig
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.update import fresh_state, update_rule


class Model:
    """gradient(weights, step, …) as the simulated workers call it, computed by the code of the real ones."""

    def __init__(self, config: RunConfig) -> None:
        self.gradients = BlockGradient(config, small_data().train)

    def microbatch(self, weights: Floats, step: int, index: int) -> Floats:
        return self.block(weights, step, Block(index, index + 1))

    def block(self, weights: Floats, step: int, block: Block) -> Floats:
        (result,) = self.gradients(weights, step, [block])
        gradient = result.gradient.copy()
        self.gradients.buffers.give(result.gradient)
        return gradient


@pytest.mark.parametrize("microbatch", [2, 16])
def test_one_step_at_rate_1_by_two_workers_and_three_shards_subtracts_the_local_gradient_bit_for_bit(
    microbatch: int,
) -> None:
    config = small_config(batch_size=16, microbatch=microbatch, optimizer="sgd", learning_rate=1.0, steps=1)
    model, before = Model(config), small_weights(config)
    world: Any = World(
        size=before.size,
        shards=3,
        workers=2,
        microbatches=config.microbatches,
        steps=1,
        update=update_rule(config),
        gradient=model.microbatch,
        initial=before.copy(),
    )
    world.run()
    gradient = model.block(before, 0, Block(0, config.microbatches))
    assert np.count_nonzero(gradient) > gradient.size // 2
    np.testing.assert_array_equal(world.weights, before - gradient / np.float32(16))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("workers", [1, 3])
def test_steps_over_a_lossy_network_give_the_weights_of_one_loop_bit_for_bit(workers: int, shards: int) -> None:
    config = small_config(
        batch_size=14, microbatch=2, optimizer="sgd", learning_rate=0.01, schedule="cosine", beta_warmup=3, steps=6
    )
    model, before, update = Model(config), small_weights(config), update_rule(config)
    world: Any = World(
        size=before.size,
        shards=shards,
        workers=workers,
        microbatches=7,
        steps=6,
        seed=workers,
        network=Network(drop=0.1, double=0.1, delay=(0.0001, 0.2)),
        update=update,
        gradient=model.microbatch,
        initial=before.copy(),
    )
    world.run()
    state = fresh_state(config, before)
    weights = state.weights
    for step in range(6):
        out = np.empty_like(weights)
        update(weights, (model.block(weights, step, Block(0, 7)),), state.optimizer, Moment(step, step), out)
        weights = out
    np.testing.assert_array_equal(world.weights, weights)
