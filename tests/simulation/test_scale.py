"""A thousand workers and sixteen shards: the coordinator's work for a step grows as the workers do, and no faster."""

import sys

import pytest

from simulation.scale import run_at_scale
from simulation.world import World


def test_a_thousand_workers_and_sixteen_shards_finish_their_steps_with_two_messages_a_worker():
    measured = run_at_scale(1000, 16, 1)

    assert min(measured.versions) >= 2
    # Each of them says ready once a step and is given work once; the shards say 16 times what they have applied.
    for meter in (measured.coordinator, measured.shard):
        assert 900 <= meter.calls <= 1200
        assert 900 <= meter.sent <= 1200
    assert "1,000 workers, 16 shards" in measured.text


def lines_a_worker(workers, consistency):
    """Lines of Python that the coordinator runs for a worker and a step: the same however busy the machine is."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        count += event == "line"
        return trace

    def watched(method):
        def call(*words):
            sys.settrace(trace)
            try:
                return method(*words)
            finally:
                sys.settrace(None)

        return call

    world = World(
        size=64,
        shards=4,
        workers=workers,
        microbatches=workers,
        steps=50,
        milestone=50,
        consistency=consistency,
        seconds=0.1,
        encodes=False,
        kept=0,
        tick_seconds=0.5,
        awaited=workers,
    )
    backlog, steps = world.coordinator.backlog, 3
    while backlog.lowest < 1:
        world.step()
    world.coordinator.handle = watched(world.coordinator.handle)
    world.coordinator.tick = watched(world.coordinator.tick)
    while backlog.lowest < 1 + steps:
        world.step()
    return count / steps / workers


@pytest.mark.parametrize("consistency", ["bsp", "ssp:2", "asp"])
def test_the_coordinator_does_no_more_for_a_worker_where_there_are_eight_times_as_many(consistency):
    few, many = (lines_a_worker(count, consistency) for count in (40, 320))

    assert many < 1.5 * few
