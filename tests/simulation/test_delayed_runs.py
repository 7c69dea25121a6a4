"""bsp with a delay of one step: gradients one version old, the same bits whoever computes, no waiting for travel."""

import numpy as np
import pytest

from simulation.gradients import chaotic_gradient, sequential, small_step
from simulation.network import LOSSY, Network
from simulation.world import World

SIZE = 96


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("microbatches", [1, 4])
def test_a_delayed_run_has_the_bits_of_one_loop_whoever_computes(workers, shards, microbatches):
    world = World(
        workers=workers,
        shards=shards,
        microbatches=microbatches,
        gradient=chaotic_gradient,
        update=small_step,
        delay=1,
        checked=True,
    )
    world.run()
    np.testing.assert_array_equal(world.weights, sequential(20, microbatches, delay=1))


@pytest.mark.parametrize("pull", ["none", "int8", "update:onebit"])
@pytest.mark.parametrize("seed", range(12))
def test_a_delayed_run_over_a_lossy_network_counts_every_step_once(seed, pull):
    world = World(
        workers=3,
        shards=2,
        microbatches=6,
        gradient=chaotic_gradient,
        update=small_step,
        seed=seed,
        network=LOSSY,
        delay=1,
        pull=pull,
        checked=True,
    )
    draw = world.random
    world.add_worker(seconds=0.1)
    world.at(draw.uniform(0, 2), lambda: world.kill("worker-0", noticed=draw.random() < 0.5))
    world.at(draw.uniform(0, 2), lambda: world.pause("worker-1", draw.choice([0.5, 3.0, 20.0])))
    world.at(draw.uniform(0, 4), world.add_worker)
    ended = world.run()
    assert ended.reason == "done"
    if pull == "none":
        np.testing.assert_array_equal(world.weights, sequential(20, 6, delay=1))


def test_a_run_that_is_stopped_and_resumed_begins_with_the_version_that_it_has():
    start = np.linspace(-1, 1, SIZE).astype(np.float32)
    world = World(
        workers=2,
        microbatches=4,
        gradient=chaotic_gradient,
        update=small_step,
        delay=1,
        version=7,
        initial=start.copy(),
        checked=True,
    )
    world.run()
    np.testing.assert_array_equal(world.weights, sequential(20, 4, delay=1, first=7, start=start))


def seconds_of_a_run(**words):
    world = World(workers=2, microbatches=2, steps=100, seconds=0.1, network=Network(heavy=0.04), **words)
    world.run()
    return world.applied()[-1], world.now


def test_with_a_delay_the_exchange_takes_no_time_of_its_own():
    """Computing takes 0.1 s a step, tensors 0.08 s there and back, other messages next to nothing."""
    (_, plain), (_, delayed) = seconds_of_a_run(), seconds_of_a_run(delay=1)

    assert plain > 100 * 0.17
    assert delayed < 100 * 0.12


def test_a_worker_holds_back_weights_for_the_work_after_the_next():
    world = World(workers=1, microbatches=1, steps=30, delay=1, seconds=0.001, network=Network(delay=(0.001, 0.05)))
    world.run()

    (worker,) = world.workers.values()
    assert [step for step, _, _ in worker.computed] == list(range(30))
    assert [versions for _, _, versions in worker.computed] == [(max(0, s - 1),) * 2 for s in range(30)]


def straight_on(before, weights, updates, out):
    np.add(weights, np.float32(updates) * (weights - before), out=out)


@pytest.mark.parametrize("seed", range(6))
def test_gradients_that_come_late_are_taken_where_the_weights_are_expected_to_be(seed):
    """One loop with w and a = w + (w - w before): step s sums gradients at a of version s - 1."""
    world = World(
        workers=3,
        shards=2,
        microbatches=1,
        gradient=chaotic_gradient,
        update=small_step,
        look_ahead=straight_on,
        seed=seed,
        network=LOSSY,
        delay=1,
        evaluators=1,
        checked=True,
    )
    world.run()

    weights, ahead = [np.zeros(SIZE, np.float32)], [np.zeros(SIZE, np.float32)]
    for step in range(20):
        gradient = chaotic_gradient(ahead[max(0, step - 1)], step, 0)
        weights.append(weights[-1] - np.float32(0.1) * gradient)
        ahead.append(weights[-1] + np.float32(1.0) * (weights[-1] - weights[-2]))
    np.testing.assert_array_equal(world.weights, weights[-1])
    for evaluator in world.evaluators.values():
        assert evaluator.measured
        for version, measured in evaluator.measured:
            np.testing.assert_array_equal(measured, weights[version])
