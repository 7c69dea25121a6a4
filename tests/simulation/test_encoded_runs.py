"""Runs whose pushes and pulls are encoded, over a network that loses messages, with workers that come and go."""

import functools

import numpy as np
import pytest

from ps_vae.ps.codecs.pull import pull_codec_for
from ps_vae.ps.partition import partition
from simulation.gradients import chaotic_gradient, small_step
from simulation.network import LOSSY, Network
from simulation.world import World

SIZE = 96


def sequential_with_replica(steps, microbatches, pull, seed, shards):
    """One loop: gradients at the replica r, which gets of the missing w - r what the codec makes of it."""

    def tree(weights, step, start, stop):
        if stop - start == 1:
            return chaotic_gradient(weights, step, start)
        middle = start + (1 << (stop - start - 1).bit_length() - 1)
        return tree(weights, step, start, middle) + tree(weights, step, middle, stop)

    slices = partition(SIZE, shards)
    codecs = [pull_codec_for(pull)(piece.size, (), seed) for piece in slices]
    states = [each.codec.initial_state() for each in codecs]
    weights, replica = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    for step in range(steps):
        weights = weights - np.float32(0.1) * tree(replica, step, 0, microbatches)
        following = np.empty_like(replica)
        for number, (piece, each) in enumerate(zip(slices, codecs, strict=True)):
            part = slice(piece.start, piece.stop)
            words, sent = np.empty(each.codec.words, np.uint32), np.empty(piece.size, np.float32)
            key = (seed ^ 0x9E3779B97F4A7C15, step + 1, number)
            if "residual" in states[number]:
                states[number]["residual"][:] = 0
            each.codec.encode(
                weights[part] - replica[part] if each.is_change else weights[part], states[number], key, words
            )
            each.codec.decode(words, sent)
            following[part] = replica[part] + sent if each.is_change else sent
        replica = following
    return weights


@pytest.mark.parametrize("pull", ["fp16", "int8", "update:int8", "update:onebit", "update:topk:0.1"])
@pytest.mark.parametrize("seed", range(8))
def test_bsp_with_encoded_pulls_has_the_bits_of_one_loop_whatever_is_lost_and_whoever_dies(pull, seed):
    world = World(
        size=SIZE,
        workers=3,
        shards=2,
        microbatches=6,
        gradient=chaotic_gradient,
        update=small_step,
        seed=seed,
        network=LOSSY,
        pull=pull,
        checked=True,
    )
    draw = world.random
    world.add_worker(seconds=0.1)
    world.at(draw.uniform(0, 2), lambda: world.kill("worker-0", noticed=draw.random() < 0.5))
    world.at(draw.uniform(0, 2), lambda: world.pause("worker-1", draw.choice([0.5, 3.0, 20.0])))
    world.at(draw.uniform(0, 4), world.add_worker)
    world.run()
    np.testing.assert_array_equal(world.weights, sequential_with_replica(20, 6, pull, seed, 2))


@pytest.mark.parametrize("push", ["int8", "onebit", "topk:0.1", "powersgd:1"])
@pytest.mark.parametrize("seed", range(6))
def test_every_step_is_applied_once_and_all_compute_on_the_same_replica_with_codecs_both_ways(push, seed):
    world = World(
        size=SIZE,
        workers=3,
        shards=2,
        microbatches=4,
        gradient=chaotic_gradient,
        update=small_step,
        seed=seed,
        network=LOSSY,
        push=push,
        pull=f"update:{push}",
        checked=True,
    )
    draw = world.random
    world.at(draw.uniform(0, 2), lambda: world.kill("worker-0", noticed=draw.random() < 0.5))
    world.at(draw.uniform(0, 4), world.add_worker)
    ended = world.run()
    assert ended.reason == "done"
    for shard in range(2):
        assert [event.step for event in world.applied(shard)] == list(range(20))


def test_residuals_of_a_worker_that_nothing_happens_to_add_up_to_what_it_was_given():
    """What the shard has counted and the worker still holds is the sum of the gradients."""
    steps = 30
    world = World(
        size=SIZE,
        workers=1,
        shards=1,
        microbatches=1,
        steps=steps,
        push="onebit",
        gradient=lambda weights, step, index: np.random.default_rng(step).standard_normal(SIZE).astype(np.float32),
    )
    world.run()
    given = functools.reduce(
        np.add, (np.random.default_rng(step).standard_normal(SIZE).astype(np.float32) for step in range(steps))
    )
    left = world.clients["worker-0"].encoder._states[0]["residual"]
    np.testing.assert_allclose(world.weights + left, given, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_weights_encoded_in_an_asynchronous_run_count_every_block_once(seed):
    world = World(
        size=SIZE,
        workers=3,
        shards=2,
        microbatches=4,
        steps=20,
        consistency=["ssp:2", "asp"][seed % 2],
        gradient=lambda weights, step, index: np.ones(weights.size, np.float32),
        seed=seed,
        network=LOSSY,
        pull="int8",
        checked=True,
    )
    world.at(1.0, lambda: world.kill("worker-0", noticed=False))
    world.run()
    assert np.abs(world.weights - 80).max() == 0


@pytest.mark.parametrize("push", ["onebit", "topk:0.1", "powersgd:1"])
def test_awaited_workers_that_nothing_happens_to_give_the_same_bits_whoever_asks_first(push):
    ends = []
    for seed in range(6):
        world = World(
            size=SIZE,
            workers=3,
            microbatches=3,
            gradient=chaotic_gradient,
            update=small_step,
            seed=seed,
            network=Network(delay=(0.0001, 0.02)),
            push=push,
            pull=f"update:{push}",
            awaited=3,
        )
        world.run()
        ends.append(world.weights)
    for end in ends[1:]:
        np.testing.assert_array_equal(end, ends[0])


def test_the_first_step_waits_for_the_workers_that_are_awaited():
    world = World(workers=2, microbatches=3, awaited=3)
    world.at(5.0, lambda: world.add_worker())
    world.run()

    began = [step for client in world.workers.values() for step, _, _ in client.computed if step == 0]
    assert len(began) == 3
