"""Whole runs under virtual time: exactly once, the same bits, the staleness bound, an end."""

import numpy as np
import pytest

from ps_vae.ps.messages import Push
from simulation.gradients import chaotic_gradient, sequential, small_step
from simulation.network import LOSSY
from simulation.world import World


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("consistency", ["bsp", "ssp:3", "asp"])
def test_fifty_pushes_over_a_lossy_network_count_exactly_fifty_times(consistency, seed):
    value = np.arange(10_000, dtype=np.float32)
    world = World(
        size=10_000,
        shards=3,
        workers=3,
        microbatches=1,
        steps=50,
        seed=seed,
        network=LOSSY,
        consistency=consistency,
        gradient=lambda weights, step, index: value,
    )
    world.run()
    assert np.abs(world.weights - 50 * value).max() == 0


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("microbatches", [1, 4, 7])
def test_bsp_gives_the_bits_of_the_sequential_run(workers, shards, microbatches):
    world = World(
        workers=workers, shards=shards, microbatches=microbatches, gradient=chaotic_gradient, update=small_step
    )
    world.run()
    np.testing.assert_array_equal(world.weights, sequential(20, microbatches))


@pytest.mark.parametrize("seed", range(40))
def test_bsp_gives_the_same_bits_over_a_lossy_network_with_workers_killed_slowed_and_added(seed):
    world = World(
        workers=3, shards=2, microbatches=6, gradient=chaotic_gradient, update=small_step, seed=seed, network=LOSSY
    )
    draw = world.random
    world.add_worker(seconds=0.1)
    world.at(draw.uniform(0, 2), lambda: world.kill("worker-0", noticed=draw.random() < 0.5))
    world.at(draw.uniform(0, 2), lambda: world.kill("worker-1", noticed=draw.random() < 0.5))
    world.at(draw.uniform(0, 4), world.add_worker)
    world.run()
    np.testing.assert_array_equal(world.weights, sequential(20, 6))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("consistency", ["ssp:0", "ssp:1", "ssp:3"])
def test_under_ssp_no_gradient_is_older_than_the_bound_when_it_is_applied(consistency, seed):
    bound = int(consistency[4:])
    world = World(workers=3, steps=60, consistency=consistency, seed=seed, network=LOSSY, shards=2)
    world.add_worker(seconds=0.08)
    world.run()
    for shard in (0, 1):
        applied = world.applied(shard)
        assert sorted(event.step for event in applied) == list(range(60))
        assert max(event.staleness for event in applied) <= bound
    for worker in world.workers.values():
        for step, _, versions in worker.computed:
            assert min(versions) >= step - bound
    # The bound is used: with none of it the slow worker would hold everybody up.
    assert bound == 0 or max(event.staleness for event in world.applied()) > 0


@pytest.mark.parametrize("seed", range(10))
def test_asp_applies_every_step_once_and_milestones_hold_the_same_steps_on_every_shard(seed):
    world = World(
        workers=4,
        shards=3,
        steps=60,
        microbatches=4,
        consistency="asp",
        seed=seed,
        network=LOSSY,
        gradient=lambda weights, step, index: np.full(weights.size, 4.0**-1 * (step + 1), np.float32),
    )
    world.run()
    for shard in range(3):
        assert sorted(event.step for event in world.applied(shard)) == list(range(60))
    for version, weights in world.snapshots.items():
        np.testing.assert_array_equal(weights, version * (version + 1) / 2)
    assert max(world.snapshots) == 60


@pytest.mark.parametrize("consistency", ["bsp", "ssp:2", "asp"])
@pytest.mark.parametrize("seed", range(10))
def test_a_stopped_run_ends_in_a_snapshot_of_whole_steps_and_tells_the_workers(consistency, seed):
    world = World(workers=3, steps=10_000, milestone=1_000, consistency=consistency, seed=seed)
    world.at(1.0 + world.random.random(), world.stop)
    ended = world.run(until=60.0)
    assert (ended.failed, ended.reason) == (False, "stopped")
    version = max(world.snapshots)
    assert 0 < version < 1_000
    np.testing.assert_array_equal(world.snapshots[version], 4.0 * version)
    assert [shard.version for shard in world.shards] == [version, version]


def test_a_run_whose_workers_are_all_gone_stops_at_the_version_that_the_shards_agree_on():
    world = World(workers=1, steps=10_000, milestone=1_000)

    def end_of_the_world():
        world.kill("worker-0", noticed=True)
        world.stop()

    world.at(1.0, end_of_the_world)
    ended = world.run(until=60.0)
    assert not ended.failed
    assert list(world.snapshots) == [world.shards[0].version]


def test_a_push_that_reached_one_of_two_shards_is_completed_by_its_reissue():
    world = World(workers=1, shards=2, microbatches=2, steps=5, gradient=chaotic_gradient, update=small_step)
    to_shard, lost = world.delivery.to_shard, []

    def lose_one(number, sender, message):
        if message.KIND == "push" and number == 1 and message.step == 2 and not lost:
            lost.append(message)
            world.kill("worker-0", noticed=True)
            world.add_worker()
            return
        to_shard(number, sender, message)

    world.delivery.to_shard = lose_one
    world.run()
    assert len(lost) == 1
    np.testing.assert_array_equal(world.weights, sequential(5, 2))


def test_a_slow_worker_gets_a_share_that_is_as_much_smaller():
    world = World(workers=1, microbatches=16, steps=60, seconds=0.01)
    world.add_worker(seconds=0.03)
    world.run()
    share = {name: sum(len(block) for _, block, _ in worker.computed) for name, worker in world.workers.items()}
    assert share["worker-0"] + share["worker-1"] == 60 * 16
    assert 2.5 <= share["worker-0"] / share["worker-1"] <= 3.5


def test_ten_thousand_steps_hold_no_more_buffers_than_ten():
    made = []
    for steps in (10, 10_000):
        world = World(workers=1, microbatches=2, steps=steps, milestone=5, shards=1, size=16, checked=False)
        shard, half = world.shards[0], np.ones(16, np.float32)
        for step in range(steps):
            for start in (0, 1):
                shard.handle(
                    "w",
                    Push(world.rules.run, 0, bytes(16), 0, step, start, start + 1, step, (1.0, 2.0), None, (half,)),
                    world.now,
                )
        assert shard.version == steps
        made.append(shard.buffers.made)
    assert made[1] <= made[0] + 2
    assert len(shard.buffers._free) + len(shard._slice.published.arrays()) == made[1]


@pytest.mark.parametrize("consistency", ["bsp", "ssp:2", "asp"])
@pytest.mark.parametrize("noticed", [True, False])
def test_stop_takes_seconds_also_when_a_worker_just_died(consistency, noticed):
    world = World(workers=2, steps=10_000, milestone=10_000, consistency=consistency, seconds=0.05)

    def misfortune():
        world.kill("worker-0", noticed=noticed)
        world.stop()

    world.at(1.0, misfortune)
    ended = world.run(until=60.0)
    assert (ended.failed, ended.reason) == (False, "stopped")
    assert world.now < 1.0 + 5.0


def test_everybody_is_told_to_stop_idle_computing_or_measuring():
    world = World(workers=2, evaluators=1, steps=12, milestone=5)
    world.add_worker(seconds=3.0)
    assert world.run().reason == "done"
    world.run_on(30.0)
    assert {name: client.stopped is not None for name, client in world.clients.items()} == dict.fromkeys(
        world.clients, True
    )
    (evaluator,) = world.evaluators.values()
    assert evaluator.measured[-1][0] == 12


def test_a_worker_that_waits_for_weights_and_was_recalled_without_hearing_of_it_comes_back():
    """Asking only the shards again it would wait for ever: the weights need the work that it was recalled to."""
    world = World(workers=1, shards=1, microbatches=2, steps=6, gradient=chaotic_gradient, update=small_step)
    world.add_worker(seconds=9.0)
    to_client, lost = world.delivery.to_client, []

    def lose_the_recall(name, link, message):
        if message.KIND == "work" and world.now >= 1.5 and not lost:
            lost.append((name, message.step))
        else:
            to_client(name, link, message)

    world.delivery.to_client = lose_the_recall
    world.at(1.5, lambda: world.kill("worker-1", noticed=True))
    world.run(until=10.0)
    assert lost == [("worker-0", 1)]
    np.testing.assert_array_equal(world.weights, sequential(6, 2))


def test_a_stopping_run_that_gave_up_work_that_came_after_all_to_one_shard_brings_the_other_there():
    world = World(workers=2, microbatches=1, steps=100, milestone=100, seconds=0.2)
    to_shard, to_coordinator = world.delivery.to_shard, world.delivery.to_coordinator
    lost, unheard = [], []

    def lose_pushes(number, sender, message):
        is_lost = number == 1 and message.KIND == "push" and message.step == 5
        if is_lost and not lost:
            world.stop()
        if is_lost and (not lost or world.now < lost[0] + 4.0):
            lost.append(world.now)
        else:
            to_shard(number, sender, message)

    def be_deaf(sender, message):
        # For longer than the run is willing to wait nobody hears that shard 0 has the step.
        if message.KIND == "applied" and message.shard == 0 and message.before > 5 and world.now < lost[0] + 5.0:
            unheard.append(message)
        else:
            to_coordinator(sender, message)

    world.delivery.to_shard, world.delivery.to_coordinator = lose_pushes, be_deaf
    ended = world.run(until=60.0)
    assert unheard
    assert (ended.failed, ended.reason) == (False, "stopped")
    assert any("a snapshot of version 5 was asked for, the shard is at" in str(error) for error in world.refused)
    version = max(world.snapshots)
    assert version >= 6
    np.testing.assert_array_equal(world.snapshots[version], version)
