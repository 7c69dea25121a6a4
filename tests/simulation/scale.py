"""Many workers: what the coordinator and the shards have to do for a step, in messages and in processor time.

The machines' own work alone, on this machine and one thread: no sockets, no frames, and slices of a line or two, so
that what is seen is what grows with the number of workers.
"""

import time
from dataclasses import dataclass, field

from ps_vae.ps.outbox import Send

from .network import Network
from .world import World

_LINE = 16
_TICK_SECONDS = 0.5
# The first step, in which everybody joins, and those that are given out before the last one is done, are left out.
_MORE_STEPS = 8


@dataclass
class Meter:
    """What one machine did since `reset`.

    calls  with a message
    sent   messages that it returned
    """

    calls: int = 0
    sent: int = 0
    seconds: float = 0.0
    slowest: float = 0.0

    def reset(self) -> None:
        self.calls, self.sent, self.seconds, self.slowest = 0, 0, 0.0, 0.0

    def watch(self, machine) -> None:
        """Count what is asked of a machine from now on."""
        machine.handle = self._watched(machine.handle, 1)
        machine.tick = self._watched(machine.tick, 0)

    def _watched(self, method, calls):
        def call(*words):
            began = time.thread_time()
            outputs = method(*words)
            seconds = time.thread_time() - began
            self.calls += calls
            self.sent += sum(isinstance(output, Send) for output in outputs)
            self.seconds += seconds
            self.slowest = max(self.slowest, seconds)
            return outputs

        return call


@dataclass
class Measured:
    """What the coordinator and the last shard did in so many steps."""

    workers: int
    shards: int
    steps: int
    consistency: str
    versions: list[int]
    coordinator: Meter
    shard: Meter
    took: float = field(default=0.0)

    @property
    def text(self) -> str:
        """A report for people."""
        size = f"{self.workers:,} workers, {self.shards} shards, {self.consistency}, a block each"
        lines = [f"{size}; the simulation took {self.took:.0f} s of processor"]
        rates = {}
        for name, meter in (("the coordinator", self.coordinator), ("a shard", self.shard)):
            seconds = meter.seconds / self.steps
            rates[name] = 1 / seconds
            a_message, slowest = 1e6 * meter.seconds / meter.calls, 1e3 * meter.slowest
            lines += [
                f"{name}: {meter.calls / self.steps:,.0f} messages in and {meter.sent / self.steps:,.0f} out a step",
                f"    {1e3 * seconds:.1f} ms of processor a step, {a_message:.1f} us a message",
                f"    the slowest {slowest:.1f} ms; at most {rates[name]:.1f} steps a second",
            ]
        lines.append(f"the bottleneck of the machines alone is {min(rates, key=lambda name: rates[name])}")
        return "\n".join(lines)


def run_at_scale(workers: int, shards: int, steps: int, consistency: str = "bsp") -> Measured:
    """So many steps after the first one, without misfortunes."""
    began = time.process_time()
    world = World(
        size=_LINE * shards,
        shards=shards,
        workers=workers,
        microbatches=workers,
        steps=steps + _MORE_STEPS,
        milestone=steps + _MORE_STEPS,
        consistency=consistency,
        seconds=0.1,
        network=Network(delay=(0.0001, 0.01)),
        encodes=False,
        kept=0,
        tick_seconds=_TICK_SECONDS,
        awaited=workers,
    )
    coordinator, shard = Meter(), Meter()
    coordinator.watch(world.coordinator)
    shard.watch(world.shards[-1])
    backlog = world.coordinator.backlog
    while backlog.lowest < 1:
        world.step()
    coordinator.reset()
    shard.reset()
    while backlog.lowest < 1 + steps:
        world.step()
    versions = [each.version for each in world.shards]
    took = time.process_time() - began
    return Measured(workers, shards, steps, consistency, versions, coordinator, shard, took)
