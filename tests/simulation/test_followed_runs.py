"""Runs whose shards have followers: servers die, stand still and come back; the bits are those of the run without."""

import numpy as np
import pytest

from simulation.gradients import chaotic_gradient, sequential, small_step
from simulation.network import LOSSY
from simulation.world import World

STEPS, MICROBATCHES = 40, 4


def followed_world(**options):
    options = {"workers": 2, "shards": 2, "steps": STEPS, "seconds": 0.05, **options}
    return World(
        microbatches=MICROBATCHES,
        gradient=chaotic_gradient,
        update=small_step,
        replicas=1,
        checked=True,
        **options,
    )


def leader_of(world, number):
    """The name of the server that leads a shard, as the coordinator thinks."""
    return world.coordinator.shards[number].address


def kill_leader(world, number, *, noticed=True, comes_back=1.0):
    name = leader_of(world, number)
    world.kill_server(name, noticed=noticed)
    world.at(world.now + comes_back, lambda: world.restart_server(name))


def moves(world):
    return world.coordinator._fleet.moves


def longest_wait(world):
    """Runs to the end; returns the longest time in which no further version was reached by every shard."""
    longest, reached, reached_at = 0.0, 0, world.now
    while world.ended is None:
        world.step()
        if (lowest := min(shard.version for shard in world.shards)) > reached:
            longest, reached, reached_at = max(longest, world.now - reached_at), lowest, world.now
    return longest


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("time", [0.9, 1.23, 2.0, 3.17])
def test_a_leader_that_dies_costs_no_bit_and_less_than_two_seconds(time, delay):
    world = followed_world(delay=delay)
    sessions = {name: client.machine._session for name, client in world.clients.items()}
    world.at(time, lambda: kill_leader(world, 1))

    assert longest_wait(world) < 2.0

    assert (world.ended.reason, moves(world)) == ("done", 1)
    np.testing.assert_array_equal(world.weights, sequential(STEPS, MICROBATCHES, delay=delay))
    assert {name: client.machine._session for name, client in world.clients.items()} == sessions


@pytest.mark.parametrize("pull", ["none", "int8", "update:onebit"])
@pytest.mark.parametrize("seed", range(4))
def test_over_a_lossy_network_leaders_die_again_and_again(seed, pull):
    rule = {"gradient": chaotic_gradient, "update": small_step, "pull": pull, "seed": seed}
    plain = World(workers=1, shards=2, steps=STEPS, microbatches=MICROBATCHES, **rule)
    plain.run()
    world = followed_world(workers=3, network=LOSSY, pull=pull, seed=seed, evaluators=1)

    def strike():
        victim = world.process(leader_of(world, 1))
        if world.now < 60.0:
            world.at(world.now + 0.7, strike)
        if victim.alive and not world.orphans(victim):
            kill_leader(world, 1, noticed=world.random.random() < 0.7)

    world.at(0.5, strike)

    assert world.run().reason == "done"

    np.testing.assert_array_equal(world.weights, plain.weights)
    assert moves(world) > 0


def test_a_leader_that_stands_still_is_deposed_and_comes_back_as_the_follower_of_its_heir():
    world = followed_world(seconds=0.2)
    world.at(1.0, lambda: world.pause("server-1", 7.0))
    world.at(10.0, lambda: kill_leader(world, 1))

    assert world.run().reason == "done"

    assert "server-1                  joins again: deposed" in "\n".join(world.transcript.lines())
    assert (moves(world), leader_of(world, 1)) == (2, "server-1")
    np.testing.assert_array_equal(world.weights, sequential(STEPS, MICROBATCHES))


def test_a_follower_that_dies_unnoticed_holds_its_leader_up_for_seconds_only():
    world = followed_world()
    world.at(1.0, lambda: world.kill_server("server-3", noticed=False))

    assert longest_wait(world) < 3.0

    assert (world.ended.reason, moves(world)) == ("done", 0)
    np.testing.assert_array_equal(world.weights, sequential(STEPS, MICROBATCHES))


def kill_first(world, comes_back=1.0):
    world.first.kill()
    world.at(world.now + comes_back, world.first.restart)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("time", [1.1, 1.23, 2.0, 3.17])
def test_a_first_server_that_dies_costs_no_bit_and_three_seconds_more_than_it_is_away(time, delay, shards):
    world = followed_world(delay=delay, shards=shards)
    sessions = {name: client.machine._session for name, client in world.clients.items()}
    world.at(time, lambda: kill_first(world))

    assert longest_wait(world) < 4.0

    assert (world.ended.reason, world.first.found) == ("done", 1)
    np.testing.assert_array_equal(world.weights, sequential(STEPS, MICROBATCHES, delay=delay))
    assert {name: client.machine._session for name, client in world.clients.items()} == sessions
    assert leader_of(world, 0) != "server-0"


def test_who_led_the_first_shard_after_that_may_die_too_and_the_first_server_again():
    world = followed_world(steps=100)
    world.at(1.0, lambda: kill_first(world))
    world.at(6.0, lambda: kill_leader(world, 0))
    world.at(7.0, lambda: kill_first(world))
    world.at(9.5, lambda: kill_leader(world, 1))

    assert world.run().reason == "done"

    assert world.first.found == 2
    np.testing.assert_array_equal(world.weights, sequential(100, MICROBATCHES))


def test_steps_are_reported_once_by_whoever_has_the_first_shard():
    world = followed_world()
    world.at(1.0, lambda: kill_first(world))
    world.run()

    own = [event.version for event in world.applied_here]
    reported = [event.version for event in world.reported]
    assert own == list(range(1, own[-1] + 1))
    assert reported == list(range(reported[0], STEPS + 1))
    # What its follower had, and it had not published or not said.
    assert reported[0] - own[-1] in (1, 2)


def test_a_first_server_and_the_follower_of_its_shard_are_lost_together():
    world = followed_world()
    world.at(1.0, lambda: world.kill_server("server-2", noticed=True))
    world.at(1.01, lambda: kill_first(world))

    ended = world.run()

    assert ended.failed
    assert ended.reason == "the run cannot be taken up from its servers: nobody has shard 1 of 2"
    assert world.unguarded == {0}


def test_a_run_that_loses_a_leader_and_its_follower_says_so():
    world = followed_world()
    world.at(1.0, lambda: world.kill_server("server-3", noticed=True))
    world.at(1.1, lambda: world.kill_server("server-1", noticed=True))

    ended = world.run()

    assert ended.failed
    assert ended.reason == "shard 2 of 2 at server-1 is silent for 60 s; resume from the newest checkpoint"
    assert world.unguarded == {1}
