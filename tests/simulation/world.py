"""The shipped coordinator, shards and workers under virtual time: one thread, one seed, no sockets.

Messages are really encoded and decoded; the network drops, doubles and delays them as the seed says. Workers may be killed,
paused, slowed and added.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ps_vae.errors import PeerError
from ps_vae.ps.blocks import Block, root
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.frames import decode, encode
from ps_vae.ps.messages import TO_CLIENT, TO_SERVER, Error, Pull, Push
from ps_vae.ps.outbox import COORDINATOR, MilestoneReached, RunEnded, Send, ShardAddress, SnapshotTaken, StepApplied
from ps_vae.ps.partition import partition
from ps_vae.ps.reduction import add_metrics
from ps_vae.ps.shard import RunRules, Shard, ShardState
from ps_vae.ps.worker import Compute, Joined, Result, Stopped, Store, Worker

Gradient = Callable[[np.ndarray, int, int], np.ndarray]


def add_up(weights, gradient, state, version, out):
    """The update rule of the checks: weights + sum of pushes."""
    np.add(weights, gradient, out=out)


@dataclass
class Network:
    """What happens to messages, in fractions and seconds."""

    drop: float = 0.0
    double: float = 0.0
    delay: tuple[float, float] = (0.0001, 0.002)


@dataclass
class SimulatedWorker:
    name: str
    machine: Worker
    seconds: float
    weights: np.ndarray
    alive: bool = True
    stopped: Stopped | None = None
    computed: list[tuple[int, Block, tuple]] = field(default_factory=list)


class World:
    """A run of `workers` workers and `shards` shards over `size` parameters."""

    def __init__(
        self,
        *,
        size=96,
        shards=2,
        workers=2,
        microbatches=4,
        steps=20,
        consistency="bsp",
        milestone=10,
        seed=0,
        network=None,
        update=add_up,
        gradient: Gradient = lambda weights, step, index: np.full(weights.size, 1.0, np.float32),
        seconds=0.01,
        initial=None,
        version=0,
    ):
        self.random = random.Random(seed)
        self.network = network or Network()
        self.now = 0.0
        self.gradient = gradient
        self.rules = RunRules(b"run-of-the-tests", microbatches, steps, parse_consistency(consistency), milestone)
        self.seconds = seconds
        self.size = size
        slices = partition(size, shards)
        whole = ShardState(version, np.zeros(size, np.float32) if initial is None else initial, {})
        self.coordinator = Coordinator(self.rules, slices, "shard-0", b"{}", whole)
        self.shards = []
        for number, piece in enumerate(slices):
            state = ShardState(version, whole.weights[piece.start : piece.stop].copy(), {})
            self.coordinator.shards[number].session = b"%16d" % number
            self.shards.append(Shard(number, self.rules, state, update, Buffers(piece.size)))
        self.workers = {}
        self.events = []
        self.ended = None
        self.snapshots = {}
        self.refused = []
        self._queue = []
        self._order = itertools.count()
        self._names = itertools.count()
        for _ in range(workers):
            self.add_worker()
        self.at(0.0, self._tick)

    # What a test does to the world

    def add_worker(self, seconds=None):
        name = f"worker-{next(self._names)}"
        machine = Worker(name.encode().ljust(16), name, "same")
        worker = SimulatedWorker(name, machine, seconds or self.seconds, np.zeros(self.size, np.float32))
        self.workers[name] = worker
        self.perform(worker, machine.start(self.now))
        return worker

    def kill(self, name, *, noticed):
        """The worker is gone; `noticed`: its connection breaks, else it falls silent."""
        self.workers[name].alive = False
        if noticed:
            self.deliver(self.coordinator.forget(name, self.now))
            for shard in self.shards:
                shard.forget(name)

    def run(self, until=300.0):
        """Until the run ends. Fails where it does not."""
        while self._queue:
            self.now, _, action = heapq.heappop(self._queue)
            if self.now > until:
                raise AssertionError(f"the run hangs at version {[shard.version for shard in self.shards]}")
            action()
            if self.ended is not None:
                return self.ended
        raise AssertionError("nothing happens any more")

    def at(self, time, action):
        heapq.heappush(self._queue, (time, next(self._order), action))

    @property
    def weights(self):
        return np.concatenate([shard.weights for shard in self.shards])

    def applied(self, shard=0):
        """The steps that a shard applied, in order."""
        return [event for number, event in self._applied if number == shard]

    # How it works

    @property
    def _applied(self):
        return [event for event in self.events if isinstance(event, tuple)]

    def _tick(self):
        self.deliver(self.coordinator.tick(self.now))
        for shard in self.shards:
            self.deliver(shard.tick(self.now), shard)
        for worker in list(self.workers.values()):
            if worker.alive and worker.machine.state != "computing":
                self.perform(worker, worker.machine.tick(self.now))
        self.at(self.now + 0.05, self._tick)

    def transmit(self, message, kinds, arrive):
        """Through the network: encoded, and perhaps lost, late or twice."""
        frames = [bytes(frame) for frame in encode(message)]
        for _ in range(1 + (self.random.random() < self.network.double)):
            if self.random.random() >= self.network.drop:
                delay = self.random.uniform(*self.network.delay)
                self.at(self.now + delay, lambda: arrive(decode(frames, kinds)))

    def deliver(self, outputs, source=None):
        for output in outputs:
            if isinstance(output, StepApplied):
                self.events.append((source.number, output))
            elif isinstance(output, SnapshotTaken):
                self.snapshots[output.version] = np.concatenate([part.payload[0] for part in output.parts])
                self.deliver(self.coordinator.finished_writing(output.version, self.now))
            elif not isinstance(output, Send):
                self.events.append(output)
                self.ended = output if isinstance(output, RunEnded) else self.ended
            elif output.to == COORDINATOR:
                self.transmit(output.message, TO_SERVER, lambda m: self._to_coordinator(COORDINATOR, m))
            elif isinstance(output.to, ShardAddress):
                number = output.to.shard
                self.transmit(output.message, TO_SERVER, lambda m, number=number: self._to_shard(number, COORDINATOR, m))
            else:
                link = None if source is None else source.number
                name = output.to
                self.transmit(output.message, TO_CLIENT, lambda m, name=name: self._to_worker(name, link, m))

    def _to_coordinator(self, sender, message):
        try:
            self.deliver(self.coordinator.handle(sender, message, self.now))
        except PeerError as error:
            self.refused.append(error)
            self.deliver([Send(sender, Error(error.code, str(error)))])

    def _to_shard(self, number, sender, message):
        shard = self.shards[number]
        if not isinstance(message, Push | Pull) and sender != COORDINATOR:
            raise AssertionError(f"a worker sent {message} to a shard")
        if not hasattr(message, "KIND") or message.KIND == "stop":
            return
        try:
            self.deliver(shard.handle(sender, message, self.now), shard)
        except PeerError as error:
            self.refused.append(error)
            self.deliver([Send(sender, Error(error.code, str(error)))], shard)

    def _to_worker(self, name, link, message):
        worker = self.workers.get(name)
        if worker is None or not worker.alive:
            return
        if worker.machine.state == "computing":
            # One thread: what comes meanwhile is read afterwards.
            self.at(self.now + 0.001, lambda: self._to_worker(name, link, message))
            return
        is_shards = message.KIND == "weights" or (message.KIND == "error" and link is not None)
        self.perform(worker, worker.machine.handle(link if is_shards else None, message, self.now))

    def perform(self, worker, actions):
        for action in actions:
            match action:
                case Send():
                    self._send_from(worker, action)
                case Store():
                    worker.weights[action.start : action.start + action.weights.size] = action.weights
                case Joined():
                    self.perform(worker, worker.machine.prepared(self.now))
                case Compute():
                    self._compute(worker, action)
                case Stopped():
                    worker.stopped = action

    def _send_from(self, worker, send):
        if send.to == COORDINATOR:
            self.transmit(send.message, TO_SERVER, lambda m: self._to_coordinator(worker.name, m))
        else:
            self.transmit(send.message, TO_SERVER, lambda m: self._to_shard(send.to.shard, worker.name, m))

    def _compute(self, worker, work):
        versions = tuple(worker.machine._held)
        results = [self._block(worker, work.step, block) for block in work.blocks]
        worker.computed += [(work.step, block, versions) for block in work.blocks]
        size = sum(len(block) for block in work.blocks)
        seconds = worker.seconds * size * self.random.uniform(0.9, 1.1)

        def done():
            if worker.alive:
                self.perform(worker, worker.machine.computed(results, round(seconds * 1e9), self.now))

        self.at(self.now + seconds, done)

    def _block(self, worker, step, block):
        """The tree sum of the block, by recursion: independent of how shards sum."""
        gradient, metrics = self._tree(worker.weights, step, root(self.rules.microbatches), block)
        return Result(block, gradient, metrics)

    def _tree(self, weights, step, node, block):
        if len(node) == 1:
            return self.gradient(weights, step, node.start).copy(), (1.0, float(step))
        middle = node.start + (1 << (len(node) - 1).bit_length() - 1)
        parts = []
        for child in (Block(node.start, middle), Block(middle, node.stop)):
            if child.start < block.stop and block.start < child.stop:
                parts.append(self._tree(weights, step, child, block))
        if len(parts) == 1:
            return parts[0]
        return parts[0][0] + parts[1][0], add_metrics(parts[0][1], parts[1][1])


def milestones(world):
    """The versions at which milestones were reached."""
    return [event.version for event in world.events if isinstance(event, MilestoneReached)]
