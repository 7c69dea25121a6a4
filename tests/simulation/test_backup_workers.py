"""Runs with a worker that is slow at times: with a backup the others do not wait for it, and the bits are the same."""

import numpy as np
import pytest

from simulation.gradients import chaotic_gradient, sequential, small_step
from simulation.network import LOSSY
from simulation.world import World

STEPS, MICROBATCHES = 80, 24
SECONDS = 0.03


def world_with(backup_workers, *, workers=4, steps=STEPS, **options):
    return World(
        workers=workers,
        shards=2,
        microbatches=MICROBATCHES,
        steps=steps,
        seconds=SECONDS,
        gradient=chaotic_gradient,
        update=small_step,
        checked=True,
        backup_workers=backup_workers,
        **options,
    )


def becomes_slow(world, name="worker-0"):
    world.at(3.0, lambda: setattr(world.clients[name], "seconds", 10 * SECONDS))


def flaps(world, name="worker-0", period=1.0):
    """Ten times as slow every other `period`."""
    client = world.clients[name]

    def toggle():
        client.seconds = 10 * SECONDS if client.seconds == SECONDS else SECONDS
        world.at(world.now + period, toggle)

    world.at(period, toggle)


def stands_still(world, name="worker-0"):
    """A second of every two."""
    for number in range(1, 20):
        world.at(2.0 * number, lambda: world.pause(name, 1.0))


def seconds_of(world):
    assert world.run().reason == "done"
    np.testing.assert_array_equal(world.weights, sequential(world.rules.steps, MICROBATCHES))
    return world.now


# A worker that is slow for good has small shares in any case.
@pytest.mark.parametrize(("what", "at_most"), [(becomes_slow, 1.05), (flaps, 0.8), (stands_still, 0.9)])
def test_with_a_backup_a_worker_that_is_ten_times_slower_costs_hardly_more_than_not_to_have_it(what, at_most):
    seconds = {}
    for backups in (0, 1):
        world = world_with(backups, awaited=4)
        what(world)
        seconds[backups] = seconds_of(world)
    alone = seconds_of(world_with(0, workers=3, awaited=3))

    assert seconds[1] < at_most * seconds[0], seconds
    assert seconds[1] < 1.15 * alone, (seconds, alone)


def test_where_all_are_equally_fast_nothing_is_done_twice():
    world = world_with(2)
    seconds_of(world)

    assert world.coordinator.backlog.backed_up == 0
    computed = [len(block) for worker in world.workers.values() for _, block, _ in worker.computed]
    assert sum(computed) == STEPS * MICROBATCHES


@pytest.mark.parametrize("seed", range(12))
def test_over_a_lossy_network_with_workers_that_flap_and_die_the_bits_are_the_same(seed):
    world = world_with(1 + seed % 3, seed=seed, network=LOSSY, steps=15)
    flaps(world, "worker-1", 0.7)
    flaps(world, "worker-2", 1.3)
    world.at(world.random.uniform(0, 8), lambda: world.kill("worker-3", noticed=seed % 2 == 0))

    seconds_of(world)
    assert world.coordinator.backlog.backed_up > 0
