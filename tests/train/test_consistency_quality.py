"""Asynchronous training of the real model is about as good as synchronous training, at equal examples."""

from functools import cache

import numpy as np
import pytest
from simulation.world import World
from small_run import small_config, small_data, small_weights

from ps_vae.ps.blocks import Block
from ps_vae.train.elbo import mean_elbo
from ps_vae.train.examples import fixed_rows
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.update import update_rule


@cache
def elbo_after(consistency, steps=400):
    """The validation ELBO of a run with three workers, one of them slow, under virtual time."""
    config = small_config(
        consistency=consistency, steps=steps, optimizer="sgd", learning_rate=0.01, batch_size=32, microbatch=8
    )
    block = BlockGradient(config, small_data().train)

    def gradient(weights, step, index):
        (result,) = block(weights, step, [Block(index, index + 1)])
        block.buffers.give(result.gradient)
        return result.gradient

    world = World(
        size=block.layout.size,
        shards=2,
        workers=2,
        microbatches=config.microbatches,
        steps=steps,
        milestone=steps,
        consistency=consistency,
        gradient=gradient,
        update=update_rule(config),
        initial=small_weights(config),
        checked=False,
    )
    world.add_worker(seconds=0.03)
    world.run()
    rows = np.arange(len(small_data().validation), dtype=np.int64)
    examples = fixed_rows(config, small_data(), "validation", 0, len(rows))
    parameters = block.layout.bind(np.concatenate([shard.weights for shard in world.shards]))
    staleness = max(event.staleness for event in world.applied())
    return mean_elbo(parameters, examples, config.seed, rows)["elbo"], staleness


def test_training_gets_somewhere_at_all():
    assert elbo_after("bsp")[0] > elbo_after("bsp", steps=4)[0] + 10


@pytest.mark.parametrize("consistency", ["ssp:3", "asp"])
def test_stale_gradients_cost_less_than_one_and_a_half_nats(consistency):
    elbo, staleness = elbo_after(consistency)
    assert staleness > 0
    assert abs(elbo - elbo_after("bsp")[0]) < 1.5
