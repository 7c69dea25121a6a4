"""Runs whose steps take a median or trimmed mean: the same bits however they are divided; liars are outvoted."""

import functools

import numpy as np
import pytest

from simulation.gradients import chaotic_gradient, small_step
from simulation.network import LOSSY
from simulation.world import World

MICROBATCHES = 10
SIZE = 96


def sequential(steps, cut):
    """The run in one loop, by NumPy."""
    weights = np.zeros(SIZE, np.float32)
    for step in range(steps):
        rows = np.sort([chaotic_gradient(weights, step, index) for index in range(MICROBATCHES)], axis=0)
        kept = rows[cut : MICROBATCHES - cut].astype(np.float64)
        total = np.add.accumulate(kept, axis=0)[-1] * (MICROBATCHES / len(kept))
        weights = weights - np.float32(0.1) * total.astype(np.float32)
    return weights


def robust_world(aggregate="median", **options):
    options = {"gradient": chaotic_gradient, "update": small_step, **options}
    return World(size=SIZE, microbatches=MICROBATCHES, aggregate=aggregate, checked=True, **options)


@pytest.mark.parametrize(("aggregate", "cut"), [("median", 4), ("trimmed:0.2", 2)])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("shards", [1, 3])
def test_the_bits_are_those_of_one_loop_whatever_the_workers_and_shards(workers, shards, aggregate, cut):
    world = robust_world(aggregate, workers=workers, shards=shards)

    assert world.run().reason == "done"

    np.testing.assert_array_equal(world.weights, sequential(20, cut))


@pytest.mark.parametrize("seed", range(15))
def test_the_bits_are_those_of_one_loop_over_a_lossy_network_with_workers_killed_slowed_and_added(seed):
    world = robust_world(workers=3, shards=2, seed=seed, network=LOSSY)
    draw = world.random
    world.add_worker(seconds=0.1)
    world.at(draw.uniform(0, 2), lambda: world.kill("worker-0", noticed=draw.random() < 0.5))
    world.at(draw.uniform(0, 4), world.add_worker)

    assert world.run().reason == "done"

    np.testing.assert_array_equal(world.weights, sequential(20, 4))


@pytest.mark.parametrize("push", ["fp16", "int8"])
def test_with_a_codec_that_rounds_each_microbatch_the_division_among_workers_does_not_show(push):
    worlds = [robust_world(workers=workers, shards=2, push=push) for workers in (1, 3)]
    for world in worlds:
        assert world.run().reason == "done"

    np.testing.assert_array_equal(worlds[0].weights, worlds[1].weights)


def toward_one(weights, step, index):
    """Of a bowl around 1, with a little noise."""
    noise = np.random.default_rng([step, index]).standard_normal(weights.size).astype(np.float32)
    return weights - np.float32(1.0) + np.float32(0.1) * noise


def descend(weights, parts, state, moment, out):
    np.subtract(weights, np.float32(0.3 / MICROBATCHES) * functools.reduce(np.add, parts), out=out)


def lie(gradient, step, index):
    return np.full_like(gradient, -1e6)


@pytest.mark.parametrize(("aggregate", "converges"), [("mean", False), ("median", True), ("trimmed:0.4", True)])
def test_a_hostile_minority_drives_the_mean_away_and_not_the_median(aggregate, converges):
    world = robust_world(aggregate, workers=4, shards=2, steps=60, gradient=toward_one, update=descend, awaited=5)
    world.add_worker().spoils = lie

    assert world.run().reason == "done"

    distance = np.abs(world.weights - np.float32(1.0)).max()
    assert (distance < 0.5) if converges else (distance > 1e3), distance
