"""Runs whose steps take a median or trimmed mean: the same bits however they are divided; liars are outvoted."""

import numpy as np
import pytest

from ps_vae.ps.shard import Shard
from simulation.gradients import chaotic_gradient
from simulation.hostility import GRABS, MICROBATCHES, SIZE, descend, grabbing_world, lie, robust_world, toward_one
from simulation.network import LOSSY


def sequential(steps, cut):
    """The run in one loop, by NumPy."""
    weights = np.zeros(SIZE, np.float32)
    for step in range(steps):
        rows = np.sort([chaotic_gradient(weights, step, index) for index in range(MICROBATCHES)], axis=0)
        kept = rows[cut : MICROBATCHES - cut].astype(np.float64)
        total = np.add.accumulate(kept, axis=0)[-1] * (MICROBATCHES / len(kept))
        weights = weights - np.float32(0.1) * total.astype(np.float32)
    return weights


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


@pytest.mark.parametrize(("aggregate", "converges"), [("mean", False), ("median", True), ("trimmed:0.4", True)])
def test_a_hostile_minority_drives_the_mean_away_and_not_the_median(aggregate, converges):
    world = robust_world(aggregate, workers=4, shards=2, steps=60, gradient=toward_one, update=descend, awaited=5)
    world.add_worker().spoils = lie

    assert world.run().reason == "done"

    distance = np.abs(world.weights - np.float32(1.0)).max()
    assert (distance < 0.5) if converges else (distance > 1e3), distance


@pytest.mark.parametrize("grabs", GRABS.values(), ids=GRABS)
def test_who_pushes_first_what_others_were_given_leaves_the_median_untouched(grabs):
    world, meek = grabbing_world(grabs), grabbing_world(None)

    assert world.run().reason == "done"
    assert meek.run().reason == "done"

    np.testing.assert_array_equal(world.weights, meek.weights)
    assert np.abs(world.weights - np.float32(1.0)).max() < 0.5
    assert {error.code for error in world.refused} == {"not-yours"}
    assert [client.refused for client in world.workers.values()] == [None] * 5


@pytest.mark.parametrize("seconds", [0.001, 1e-6])
def test_who_seems_to_be_much_faster_than_others_is_outvoted_like_anybody(seconds):
    world = robust_world(workers=4, awaited=5, shards=2, steps=60, gradient=toward_one, update=descend)
    hostile = world.add_worker(seconds=seconds)
    hostile.spoils = lie

    assert world.run().reason == "done"

    assert np.abs(world.weights - np.float32(1.0)).max() < 0.5
    assert sum(len(block) for _, block, _ in hostile.computed) <= 60 * MICROBATCHES // 5


@pytest.mark.parametrize("seed", range(10))
def test_nor_over_a_lossy_network_with_backups_and_workers_killed_and_added(seed):
    world = grabbing_world(GRABS["with a permit of its own"], seed=seed, network=LOSSY, backup_workers=2, steps=30)
    world.at(world.random.uniform(0, 2), lambda: world.kill("worker-0", noticed=seed % 2 == 0))
    world.at(world.random.uniform(0, 4), world.add_worker)

    assert world.run().reason == "done"

    assert "not-yours" in {error.code for error in world.refused}


def test_without_permits_who_pushes_first_drives_the_median_away(monkeypatch):
    monkeypatch.setattr(Shard, "_is_permitted", lambda self, push: None)
    world = grabbing_world(GRABS["with none"])
    monkeypatch.setattr(world.delivery, "_check_was_given", lambda shard, push: None)

    assert world.run().reason == "done"

    assert np.abs(world.weights - np.float32(1.0)).max() > 1e3


def kill_leader(world):
    name = world.coordinator.shards[1].address
    world.kill_server(name, noticed=True)
    world.at(world.now + 1.0, lambda: world.restart_server(name))


def kill_first(world):
    world.first.kill()
    world.at(world.now + 1.0, world.first.restart)


@pytest.mark.parametrize("kill", [kill_leader, kill_first])
@pytest.mark.parametrize("seed", range(4))
def test_permits_are_good_at_followers_that_lead_and_after_a_coordinator_was_started_again(seed, kill):
    world = robust_world(workers=3, shards=2, replicas=1, steps=40, seconds=0.05, seed=seed)
    world.add_worker().grabs = GRABS["with a permit of its own"]
    world.at(world.random.uniform(2.0, 4.0), lambda: kill(world))

    assert world.run().reason == "done"

    assert (world.coordinator._fleet.moves > 0) or world.first.found == 1
    np.testing.assert_array_equal(world.weights, sequential(40, 4))
    assert "not-yours" in {error.code for error in world.refused}
