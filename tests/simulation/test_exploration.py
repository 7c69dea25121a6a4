"""Random runs: members, network and misfortunes drawn from a seed; every run ends, and ends right."""

import random

import numpy as np
import pytest

from simulation.test_runs import chaotic_gradient, sequential, small_step
from simulation.world import Network, World

# Virtual seconds in which a run of this size has to end, whatever happens to it.
PATIENCE = 400.0


def unit_gradient(weights, step, index):
    return np.full(weights.size, 1.0, np.float32)


class Misfortunes:
    """What a seed does to a run."""

    def __init__(self, seed):
        draw = random.Random(seed)
        self.consistency = draw.choice(["bsp", "bsp", "ssp:1", "ssp:3", "asp"])
        self.microbatches = draw.randint(1, 9)
        self.steps = draw.randint(1, 25)
        bsp = self.consistency == "bsp"
        self.delay = draw.choice([0, 0, 1]) if bsp else 0
        low, high = draw.choice([(0.0001, 0.002), (0.0001, 0.05), (0.01, 0.5)])
        self.world = World(
            size=64,
            checked=True,
            seed=seed,
            shards=draw.randint(1, 3),
            workers=draw.randint(1, 4),
            evaluators=draw.choice([0, 0, 1, 2]),
            microbatches=self.microbatches,
            steps=self.steps,
            consistency=self.consistency,
            delay=self.delay,
            milestone=draw.choice([1, 3, 7, 100]),
            network=Network(draw.choice([0.0, 0.02, 0.1, 0.2]), draw.choice([0.0, 0.1]), (low, high)),
            gradient=chaotic_gradient if bsp else unit_gradient,
            **({"update": small_step} if bsp else {}),
            # Drawn apart, so that the rest of a seed stays what it was.
            backup_workers=random.Random(-1 - seed).choice([0, 1, 2]) if bsp else 0,
        )
        self.is_told_to_stop = draw.random() < 0.3
        self._draw = draw
        self._arrange()

    def _arrange(self):
        world, draw = self.world, self._draw
        # One worker that nothing happens to, so that the run can end.
        for name in list(world.workers)[1:]:
            match draw.choice(["nothing", "slow", "dies", "pauses", "pauses twice"]):
                case "slow":
                    world.clients[name].seconds = draw.choice([0.1, 0.5, 3.0])
                case "dies":
                    self._at(lambda name=name: world.kill(name, noticed=draw.random() < 0.5))
                case "pauses":
                    self._at(lambda name=name: world.pause(name, draw.choice([0.5, 3.0, 20.0, 90.0])))
                case "pauses twice":
                    self._at(lambda name=name: world.pause(name, draw.uniform(0, 8)))
                    self._at(lambda name=name: world.pause(name, draw.uniform(0, 8)))
        for name in world.evaluators:
            if draw.random() < 0.3:
                self._at(lambda name=name: world.kill(name, noticed=draw.random() < 0.5))
        for _ in range(draw.choice([0, 0, 1, 2])):
            self._at(lambda: world.add_worker(draw.choice([None, 0.2])))
        if self.is_told_to_stop:
            self._at(world.stop)

    def _at(self, action):
        self.world.at(self._draw.choice([0.02, 0.5, 2.0, 10.0]) * self._draw.random(), action)

    def check(self):
        world = self.world
        ended = world.run(PATIENCE)
        if ended.failed:
            # A stopping run has seconds to make its shards agree; with so many messages lost that may not be enough.
            # Where blocks are applied as they come, a slow worker's may be missing: half a step cannot be taken back.
            assert self.is_told_to_stop, ended.reason
            assert world.network.drop >= 0.1 or any(shard._arrivals for shard in world.shards), ended.reason
        version = world.shards[0].version
        assert self.is_told_to_stop or ended.reason == "done"
        assert version == self.steps or ended.reason != "done"
        if ended.reason in ("done", "stopped"):
            last = max(world.snapshots)
            assert last == version or (ended.reason == "stopped" and last < version <= last + 2)
        for number, shard in enumerate(world.shards):
            steps = [event.step for event in world.applied(number)]
            assert sorted(steps) == sorted([*range(shard.before), *shard.beyond])
        for version, weights in world.snapshots.items():
            if self.consistency == "bsp":
                expected = sequential(version, self.microbatches, world.size, delay=self.delay)
            else:
                expected = np.full(world.size, version * self.microbatches, np.float32)
            np.testing.assert_array_equal(weights, expected, err_msg=f"snapshot of version {version}")
        for evaluator in world.evaluators.values():
            for version, weights in evaluator.measured:
                if version in world.snapshots:
                    np.testing.assert_array_equal(weights, world.snapshots[version], err_msg=f"measured {version}")
            if ended.reason == "done" and evaluator.name in {
                client.name for client in world.coordinator.clients.values()
            }:
                assert not evaluator.alive or evaluator.measured[-1][0] == self.steps, "the last milestone was missed"


@pytest.mark.parametrize("first", range(0, 300, 20))
def test_any_run_ends_with_every_step_applied_once(first):
    for seed in range(first, first + 20):
        try:
            Misfortunes(seed).check()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
