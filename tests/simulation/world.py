"""The shipped coordinator, shards, workers and evaluators under virtual time: one thread, one seed, no sockets.

Messages are really encoded and decoded; the network drops, doubles and delays them as the seed says. Workers may be
killed, paused, slowed and added. After every event the invariants of the machines are checked.
"""

import dataclasses
import functools
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ps_vae.errors import PeerError, RefusedError
from ps_vae.nn.dense import weight_gradient
from ps_vae.ps.actions import Compute, Joined, Measure, Result, Spent, Stopped, Store, StoreWords
from ps_vae.ps.aggregation.table import aggregation_for
from ps_vae.ps.blocks import Block, root
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.factors import Products
from ps_vae.ps.codecs.pull import pull_codec_for
from ps_vae.ps.codecs.table import push_codec_for
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.encoder import Encoder, room_for
from ps_vae.ps.evaluator import Evaluator
from ps_vae.ps.frames import decode, encode
from ps_vae.ps.messages import TO_CLIENT, TO_SERVER, Error, Pull, Push
from ps_vae.ps.outbox import COORDINATOR, MilestoneReached, RunEnded, Send, ShardAddress, SnapshotTaken, StepApplied
from ps_vae.ps.partition import partition
from ps_vae.ps.publication import Want
from ps_vae.ps.reduction import add_metrics
from ps_vae.ps.replica import ReplicaReader
from ps_vae.ps.rules import RunRules
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState
from ps_vae.ps.worker import Worker

Gradient = Callable[[np.ndarray, int, int], np.ndarray]

TICK_SECONDS = 0.05


def add_up(weights, parts, state, moment, out):
    """The update rule of the checks: weights + sum of pushes."""
    np.add(weights, functools.reduce(np.add, parts), out=out)


@dataclass
class Network:
    """What happens to messages, in fractions and seconds.

    heavy  what tensors take besides
    """

    drop: float = 0.0
    double: float = 0.0
    delay: tuple[float, float] = (0.0001, 0.002)
    heavy: float = 0.0


class WatchedBuffers(Buffers):
    """Knows how often an array was taken: between two events it may have been given back and published anew."""

    def __init__(self, size):
        super().__init__(size)
        self.turns = {}

    def take(self):
        array = super().take()
        self.turns[id(array)] = self.turns.get(id(array), 0) + 1
        return array


@dataclass
class SimulatedClient:
    """A worker or an evaluator: its machine, and the process around it, which may stand still or be dead.

    spoils   what a faulty or hostile worker makes of the gradient of a step's microbatch, None where it is honest
    is_mute  it never says that it is in trouble
    refused  why it gave up
    """

    name: str
    machine: Worker | Evaluator
    seconds: float
    weights: np.ndarray
    reader: ReplicaReader | None = None
    encoder: Encoder | None = None
    alive: bool = True
    asleep_until: float = 0.0
    spoils: Callable[[np.ndarray, int, int], np.ndarray] | None = None
    is_mute: bool = False
    refused: RefusedError | None = None
    stopped: Stopped | None = None
    computed: list[tuple[int, Block, tuple]] = field(default_factory=list)
    measured: list[tuple[int, np.ndarray]] = field(default_factory=list)

    @property
    def is_busy(self):
        return self.machine.state in ("computing", "measuring")


class World:
    """A run of `workers` workers and `shards` shards over `size` parameters.

    checked     whether invariants are checked after every event, which takes most of the time
    push, pull  codecs, in the words of users
    """

    def __init__(
        self,
        *,
        size=96,
        shards=2,
        workers=2,
        evaluators=0,
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
        checked=False,
        push="none",
        pull="none",
        awaited=1,
        delay=0,
        look_ahead=None,
        aggregate="mean",
        backup_workers=0,
    ):
        self.random = random.Random(seed)
        self.network = network or Network()
        self.now = 0.0
        self.gradient = gradient
        rule = dataclasses.replace(parse_consistency(consistency), delay=delay, first=version)
        aggregation = aggregation_for(aggregate)
        self.rules = RunRules(
            b"run-of-the-tests", microbatches, steps, rule, milestone, metrics=2, aggregation=aggregation
        )
        self.seconds = seconds
        self.size = size
        self.checked = checked
        slices = partition(size, shards)
        whole = ShardState(version, np.zeros(size, np.float32) if initial is None else initial, {})
        make_push, make_pull = push_codec_for(push), pull_codec_for(pull)
        products = Products(1, weight_gradient)
        self.slices = slices
        self.push_codecs = [make_push(piece.size, (), products) for piece in slices] if make_push else []
        self.pull_codecs = [make_pull(piece.size, (), seed) for piece in slices] if make_pull else []
        self.coordinator = Coordinator(
            self.rules, slices, "shard-0", b"{}", whole, awaited=awaited, backup_workers=backup_workers
        )
        self.shards = []
        for number, piece in enumerate(slices):
            state = ShardState(version, whole.weights[piece.start : piece.stop].copy(), {})
            self.coordinator.shards[number].session = b"%16d" % number
            codecs = [made[number] if made else None for made in (self.push_codecs, self.pull_codecs)]
            self.shards.append(
                Shard(
                    number,
                    self.rules,
                    state,
                    update,
                    WatchedBuffers(piece.size),
                    look_ahead=look_ahead,
                    codec=codecs[0],
                    pull=codecs[1],
                )
            )
        self.clients = {}
        self.events = []
        self.ended = None
        self.snapshots = {}
        self.refused = []
        self.seen = {shard.number: (shard.version, {}) for shard in self.shards}
        self._queue = []
        self._order = itertools.count()
        self._names = itertools.count()
        for _ in range(workers):
            self.add_worker()
        for _ in range(evaluators):
            self.add_evaluator()
        self.at(0.0, self._tick)

    # What a test does to the world

    def add_worker(self, seconds=None):
        name = f"worker-{next(self._names)}"
        client = self._add(name, Worker(name.encode().ljust(16), name, "same"), seconds or self.seconds)
        if self.pull_codecs:
            client.reader = ReplicaReader([pull.codec for pull in self.pull_codecs], self.slices)
        if self.push_codecs:
            buffers, repeats = (
                Buffers(room_for(self.push_codecs, self.rules.microbatches)),
                self.rules.consistency.is_synchronous,
            )
            client.encoder = Encoder(self.push_codecs, self.slices, 0, buffers, repeats=repeats)
        return client

    def add_evaluator(self, seconds=0.05):
        name = f"evaluator-{next(self._names)}"
        return self._add(name, Evaluator(name.encode().ljust(16), name), seconds)

    def kill(self, name, *, noticed):
        """The client is gone; `noticed`: its connection breaks, else it falls silent."""
        self.clients[name].alive = False
        if noticed:
            self.deliver(self.coordinator.forget(name, self.now))
            for shard in self.shards:
                shard.forget(name)

    def pause(self, name, seconds):
        """The client stands still; what comes meanwhile waits, and what it computes ends so much later."""
        self.clients[name].asleep_until = self.now + seconds

    def stop(self):
        self.deliver(self.coordinator.stop(self.now))

    def run(self, until=300.0):
        """Until the run ends. Fails where it does not."""
        while self._queue:
            self.now, _, action = heapq.heappop(self._queue)
            if self.now > until:
                raise AssertionError(f"the run hangs at version {[shard.version for shard in self.shards]}")
            action()
            if self.checked:
                self.check_invariants()
            if self.ended is not None:
                return self.ended
        raise AssertionError("nothing happens any more")

    def run_on(self, seconds):
        """What still happens after the end."""
        until = self.now + seconds
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()

    def at(self, time, action):
        heapq.heappush(self._queue, (time, next(self._order), action))

    @property
    def weights(self):
        return np.concatenate([shard.weights for shard in self.shards])

    @property
    def workers(self):
        return {name: client for name, client in self.clients.items() if isinstance(client.machine, Worker)}

    @property
    def evaluators(self):
        return {name: client for name, client in self.clients.items() if isinstance(client.machine, Evaluator)}

    def applied(self, shard=0):
        """The steps that a shard applied, in order."""
        return [event for number, event in self._applied if number == shard]

    def check_invariants(self):
        """What the machines promise at any time."""
        for shard in self.shards:
            version, published = self.seen[shard.number]
            assert shard.version >= version, "a shard's version decreased"
            assert shard.version == shard.before
            assert all(step > shard.before for step in shard.beyond)
            arrays = shard._published.arrays()
            arrays = {(at, shard.buffers.turns.get(at)): array for at, array in arrays.items()}
            for place, (array, copy) in published.items():
                if place in arrays:
                    assert np.array_equal(array, copy), "published weights were modified"
            copies = {at: published[at] if at in published else (a, a.copy()) for at, a in arrays.items()}
            self.seen[shard.number] = (shard.version, copies)
        for work in self.coordinator.backlog.steps.values():
            held = [*work.pool, *(block for lease in work.leases.values() for block in lease.blocks)]
            indices = sorted(index for block in held for index in range(block.start, block.stop))
            assert indices == list(range(work.microbatches)), f"step {work.step}: {held} are not all, each once"
            for backup in work.backups.values():
                backed = work.leases[backup.backs]
                assert backed.blocks == backup.blocks
                assert backed.session != backup.session
                assert not backed.delivered
        for client in self.coordinator.clients.values():
            found = self.coordinator.backlog.lease_of(client)
            assert found is None or found[1].session == client.session
            assert not (client.idle and client.lease is not None)

    # How it works

    def _add(self, name, machine, seconds):
        client = SimulatedClient(name, machine, seconds, np.zeros(self.size, np.float32))
        self.clients[name] = client
        self.perform(client, machine.start(self.now))
        return client

    @property
    def _applied(self):
        return [event for event in self.events if isinstance(event, tuple)]

    def _tick(self):
        self.deliver(self.coordinator.tick(self.now))
        for shard in self.shards:
            self.deliver(shard.tick(self.now), shard)
        for client in list(self.clients.values()):
            if client.alive and not client.is_busy and client.asleep_until <= self.now:
                self.perform(client, client.machine.tick(self.now))
        self.at(self.now + TICK_SECONDS, self._tick)

    def transmit(self, message, kinds, arrive):
        """Through the network: encoded, and perhaps lost, late or twice."""
        frames = [bytes(frame) for frame in encode(message)]
        for _ in range(1 + (self.random.random() < self.network.double)):
            if self.random.random() >= self.network.drop:
                delay = self.random.uniform(*self.network.delay) + (self.network.heavy if len(frames) > 1 else 0.0)
                self.at(self.now + delay, lambda: arrive(decode(frames, kinds)))

    def deliver(self, outputs, source=None):
        for output in outputs:
            if isinstance(output, StepApplied):
                self.events.append((source.number, output))
            elif isinstance(output, SnapshotTaken):
                assert output.version not in self.snapshots, f"snapshot {output.version} was taken twice"
                self.snapshots[output.version] = np.concatenate([part.payload[0] for part in output.parts])
                self.at(self.now + 0.02, partial(self._finish_writing, output.version))
            elif not isinstance(output, Send):
                self.events.append(output)
                self.ended = output if isinstance(output, RunEnded) else self.ended
            elif output.to == COORDINATOR:
                self.transmit(output.message, TO_SERVER, partial(self._to_coordinator, COORDINATOR))
            elif isinstance(output.to, ShardAddress):
                self.transmit(output.message, TO_CLIENT, partial(self._to_shard, output.to.shard, COORDINATOR))
            else:
                link = None if source is None else source.number
                self.transmit(output.message, TO_CLIENT, partial(self._to_client, output.to, link))

    def _finish_writing(self, version):
        self.deliver(self.coordinator.finished_writing(version, self.now))

    def _to_coordinator(self, sender, message):
        try:
            self.deliver(self.coordinator.handle(sender, message, self.now))
        except PeerError as error:
            self.refused.append(error)
            if sender != COORDINATOR:
                self.deliver([Send(sender, Error(error.code, str(error)))])

    def _to_shard(self, number, sender, message):
        if message.KIND == "stop":
            return
        shard = self.shards[number]
        if not isinstance(message, Push | Pull) and sender != COORDINATOR:
            raise AssertionError(f"a client sent {message} to a shard")
        try:
            self.deliver(shard.handle(sender, message, self.now), shard)
        except PeerError as error:
            self.refused.append(error)
            if sender != COORDINATOR:
                self.deliver([Send(sender, Error(error.code, str(error)))], shard)

    def _to_client(self, name, link, message):
        client = self.clients[name]
        if not client.alive:
            return
        if client.is_busy or client.asleep_until > self.now:
            # One thread: what comes meanwhile is read afterwards.
            self.at(max(self.now + 0.001, client.asleep_until), lambda: self._to_client(name, link, message))
            return
        if isinstance(client.machine, Evaluator):
            self.perform(client, client.machine.handle(link or 0, message, self.now))
            return
        is_shards = message.KIND == "weights" or (message.KIND == "error" and link is not None)
        try:
            self.perform(client, client.machine.handle(link if is_shards else None, message, self.now))
        except RefusedError as error:
            client.refused, client.alive = error, False

    def perform(self, client, actions):
        for action in actions:
            match action:
                case Send():
                    self._send_from(client, action)
                case Store():
                    client.weights[action.start : action.start + action.weights.size] = action.weights
                case StoreWords():
                    client.reader.take(action.shard, action.words, client.weights, is_change=action.is_change)
                case Joined():
                    if isinstance(client.machine, Worker):
                        self.perform(client, client.machine.prepared(self.now))
                case Compute():
                    self._compute(client, action)
                case Measure():
                    self._measure(client, action)
                case Stopped():
                    client.stopped = action

    def _send_from(self, client, send):
        if client.is_mute and send.message.KIND == "trouble":
            return
        if send.to == COORDINATOR:
            self.transmit(send.message, TO_SERVER, partial(self._to_coordinator, client.name))
        else:
            self.transmit(send.message, TO_SERVER, partial(self._to_shard, send.to.shard, client.name))

    def _compute(self, client, work):
        versions = tuple(client.machine._held)
        self._check_replica(client, work.step)
        results = [self._block(client, work.step, block) for block in work.blocks]
        parts = None
        if client.encoder is not None:
            parts = [
                client.encoder.parts(client.encoder.encode(work.step, result), len(result.block)) for result in results
            ]
        client.computed += [(work.step, block, versions) for block in work.blocks]
        size = sum(len(block) for block in work.blocks)
        seconds = client.seconds * size * self.random.uniform(0.9, 1.1)
        self._when_awake(
            client,
            self.now + seconds,
            lambda: self.perform(
                client, client.machine.computed(results, Spent(round(seconds * 1e9)), self.now, parts)
            ),
        )

    def _check_replica(self, client, step):
        """In a synchronous run whoever computes holds the bits that the shards hold for it."""
        if not self.rules.consistency.is_synchronous:
            return
        for shard, piece in zip(self.shards, self.slices, strict=True):
            found = shard._published.find(Want(self.rules.consistency.usable(step)))
            if found is not None:
                held = client.weights[piece.start : piece.stop]
                assert np.array_equal(held, found.payload[0]), f"{client.name} computes step {step} on other weights"

    def _measure(self, client, measure):
        client.measured.append((measure.version, client.weights.copy()))
        values = [("version", float(measure.version))]
        self._when_awake(
            client, self.now + client.seconds, lambda: self.perform(client, client.machine.measured(values, self.now))
        )

    def _when_awake(self, client, time, action):
        def act():
            if client.asleep_until > self.now:
                self.at(client.asleep_until, act)
            elif client.alive:
                action()

        self.at(time, act)

    def _block(self, client, step, block):
        """The tree sum of the block, by recursion: independent of how shards sum."""
        gradient, metrics = self._tree(client, step, root(self.rules.microbatches), block)
        return Result(block, gradient, metrics)

    def _tree(self, client, step, node, block):
        if len(node) == 1:
            gradient = self.gradient(client.weights, step, node.start).copy()
            return client.spoils(gradient, step, node.start) if client.spoils else gradient, (1.0, float(step))
        middle = node.start + (1 << (len(node) - 1).bit_length() - 1)
        parts = []
        for child in (Block(node.start, middle), Block(middle, node.stop)):
            if child.start < block.stop and block.start < child.stop:
                parts.append(self._tree(client, step, child, block))
        if len(parts) == 1:
            return parts[0]
        return parts[0][0] + parts[1][0], add_metrics(parts[0][1], parts[1][1])


def milestones(world):
    """The versions at which milestones were reached."""
    return [event.version for event in world.events if isinstance(event, MilestoneReached)]
