"""Runs with workers whose gradients are none: the others go on without them, and nothing is lost."""

import numpy as np
import pytest

from ps_vae.ps.outbox import Member
from simulation.gradients import chaotic_gradient, sequential, small_step
from simulation.network import LOSSY
from simulation.world import World


def with_nan(gradient, step, index):
    """In the last shard's slice, and nowhere else."""
    gradient[-1] = np.nan
    return gradient


def put_out(world):
    return {event.name for event in world.events if isinstance(event, Member) and event.change == "put out"}


def faulty_world(count, *, is_mute, honest=3, **options):
    world = World(
        workers=honest,
        shards=2,
        microbatches=12,
        steps=40,
        checked=True,
        **options,
    )
    for _ in range(count):
        worker = world.add_worker()
        worker.spoils, worker.is_mute = with_nan, is_mute
    return world


@pytest.mark.parametrize("is_mute", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_workers_that_send_nan_are_put_out_and_the_bits_are_those_of_a_run_without_them(count, is_mute):
    world = faulty_world(count, is_mute=is_mute, gradient=chaotic_gradient, update=small_step)

    assert world.run().reason == "done"

    np.testing.assert_array_equal(world.weights, sequential(40, 12))
    faulty = {f"worker-{3 + number}" for number in range(count)}
    assert put_out(world) == faulty
    assert {name for name, worker in world.workers.items() if worker.refused is not None} == faulty
    assert all(world.clients[name].refused.code == "put-out" for name in faulty)


@pytest.mark.parametrize("seed", range(10))
def test_over_a_lossy_network_nobody_else_is_put_out(seed):
    world = faulty_world(1, is_mute=True, gradient=chaotic_gradient, update=small_step, seed=seed, network=LOSSY)

    assert world.run().reason == "done"

    np.testing.assert_array_equal(world.weights, sequential(40, 12))
    assert put_out(world) <= {"worker-3"}


@pytest.mark.parametrize("consistency", ["ssp:1", "ssp:3", "asp"])
def test_where_blocks_are_applied_as_they_come_every_one_still_counts_once(consistency):
    world = faulty_world(1, is_mute=True, consistency=consistency)

    assert world.run().reason == "done"

    np.testing.assert_array_equal(world.weights, np.full(96, 40 * 12, np.float32))
    assert put_out(world) == {"worker-3"}


@pytest.mark.parametrize("is_mute", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_gradient_that_nobody_can_compute_ends_the_run(workers, is_mute):
    def diverged(weights, step, index):
        return np.full(weights.size, np.nan if step == 7 else 1.0, np.float32)

    world = World(workers=workers, shards=2, microbatches=12, steps=40, gradient=diverged, checked=True)
    for worker in world.workers.values():
        worker.is_mute = is_mute

    ended = world.run()

    assert ended.failed
    assert "refused its gradient: not-finite" in ended.reason or "step 7: the gradient is nan" in ended.reason
    assert max(shard.version for shard in world.shards) == 7
    assert put_out(world) == set()
