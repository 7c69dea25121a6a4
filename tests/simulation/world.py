"""A run: the shipped coordinator, shards, workers and evaluators, and the network between them.

Messages are really encoded and decoded; the network drops, doubles and delays them as the seed says. Processes may be
killed, started again, paused, slowed and added, their clocks jump, the network parts. After every event the invariants
of the machine that it happened to are checked.
"""

import dataclasses
import random

import numpy as np

from ps_vae.nn.dense import weight_gradient
from ps_vae.ps.aggregation.table import aggregation_for
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.factors import Products
from ps_vae.ps.codecs.pull import pull_codec_for
from ps_vae.ps.codecs.table import push_codec_for
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.encoder import Encoder, room_for
from ps_vae.ps.evaluator import Evaluator
from ps_vae.ps.outbox import COORDINATOR
from ps_vae.ps.partition import partition
from ps_vae.ps.replica import ReplicaReader
from ps_vae.ps.rules import RunRules
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState
from ps_vae.ps.worker import Worker

from .agenda import Agenda
from .delivery import Delivery
from .gradients import Gradient, add_up, unit_gradient
from .invariants import Invariants
from .ledger import Ledger, ViolationError
from .network import Network
from .processes import ClientProcess, Process, WatchedBuffers
from .programs import Programs
from .transcript import KEPT, Transcript

TICK_SECONDS = 0.05


class World:
    """A run of `workers` workers and `shards` shards over `size` parameters.

    checked     whether invariants are checked after every event
    witnessed   whether a ledger is kept: `size` is then to be 64 a shard or more, of which 48 are not trained
    push, pull  codecs, in the words of users
    encodes     whether messages travel as frames, as they do outside
    kept        lines of the transcript
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
        gradient: Gradient = unit_gradient,
        seconds=0.01,
        initial=None,
        version=0,
        checked=False,
        witnessed=False,
        push="none",
        pull="none",
        awaited=1,
        delay=0,
        look_ahead=None,
        aggregate="mean",
        backup_workers=0,
        encodes=True,
        tick_seconds=TICK_SECONDS,
        kept=KEPT,
    ):
        self.random = random.Random(seed)
        self.network = dataclasses.replace(network or Network(), partitions=[])
        self.transcript = Transcript(kept)
        self.agenda = Agenda()
        self.gradient = gradient
        rule = dataclasses.replace(parse_consistency(consistency), delay=delay, first=version)
        aggregation = aggregation_for(aggregate)
        self.rules = RunRules(
            b"run-of-the-tests", microbatches, steps, rule, milestone, metrics=2, aggregation=aggregation
        )
        self.seconds = seconds
        self.size = size
        self.checked = checked
        self.encodes = encodes
        self.slices = slices = partition(size, shards)
        whole = ShardState(version, np.zeros(size, np.float32) if initial is None else initial, {})
        self.ledger = None
        updates = [update] * shards
        if witnessed:
            self.ledger = Ledger(slices, self.rules, version)
            whole.weights = self.ledger.initial(whole.weights)
            self.gradient = self.ledger.gradient(gradient)
            updates = [self.ledger.update(number, update) for number in range(shards)]
        make_push, make_pull = push_codec_for(push), pull_codec_for(pull)
        products = Products(1, weight_gradient)
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
                    updates[number],
                    WatchedBuffers(piece.size),
                    look_ahead=look_ahead,
                    codec=codecs[0],
                    pull=codecs[1],
                )
            )
        self.servers = [Process(name=f"server-{number}") for number in range(shards)]
        self.clients = {}
        self.events = []
        self.ended = None
        self.snapshots = {}
        self.refused = []
        self.invariants = Invariants(self.shards)
        self.programs = Programs(self)
        self.delivery = Delivery(self)
        self._tick_seconds = tick_seconds
        self._names = 0
        for _ in range(workers):
            self.add_worker()
        for _ in range(evaluators):
            self.add_evaluator()
        self.at(0.0, self._tick)

    # What a test does to the world

    def add_worker(self, seconds=None):
        return self._start(f"worker-{self._name()}", Worker, seconds or self.seconds)

    def add_evaluator(self, seconds=0.05):
        return self._start(f"evaluator-{self._name()}", Evaluator, seconds)

    def kill(self, name, *, noticed):
        """The client is gone; `noticed`: its connections break, else it falls silent."""
        client = self.clients[name]
        self.note(name, f"is killed, and {'its connections break' if noticed else 'nobody is told'}")
        client.die()
        if noticed:
            self.disconnect(name, self.addresses)

    def restart(self, name):
        """The client is started again where it died: a new session, and nothing in memory."""
        client = self.clients[name]
        self.note(name, "is started again")
        for address in self.addresses:
            client.reconnect(address)
        client.alive, client.asleep_until = True, 0.0
        self._boot(client, type(client.machine))

    def disconnect(self, name, addresses):
        """The servers at these addresses see their connections with a client break; it makes new ones."""
        client = self.clients[name]
        for address in addresses:
            sender = client.sender(address)
            client.reconnect(address)
            self.note(address, f"sees the connection with {name} break")
            if address == COORDINATOR:
                self.delivery.deliver(self.coordinator.forget(sender, self.clock(self.servers[0])), COORDINATOR)
            else:
                number = self._number(address)
                now = self.clock(self.servers[number])
                self.delivery.deliver(self.shards[number].forget(sender, now), number)

    def pause(self, name, seconds):
        """The process stands still; what comes meanwhile waits, and what it computes ends so much later."""
        process = self.process(name)
        self.note(name, f"is paused for {seconds:.2f} s")
        process.asleep_until = max(process.asleep_until, self.now + seconds)
        self.at(process.asleep_until, lambda: process.read(self.now))

    def jump(self, name, seconds):
        """The clock of a process jumps forwards."""
        self.note(name, f"finds its clock {seconds:.2f} s on")
        self.process(name).offset += seconds

    def part(self, one, other, seconds):
        """Nothing passes between two sets of addresses for so long."""
        self.note("the network", f"parts {', '.join(sorted(one))} from {', '.join(sorted(other))} for {seconds:.2f} s")
        self.network.part(one, other, self.now, seconds)

    def stop(self):
        self.note(COORDINATOR, "is told to stop the run")
        self.delivery.deliver(self.coordinator.stop(self.clock(self.servers[0])), COORDINATOR)

    def run(self, until=300.0):
        """Until the run ends. A ViolationError where it does not."""
        while self.ended is None:
            if self.agenda.next_time > until:
                raise ViolationError(f"the run hangs at versions {[shard.version for shard in self.shards]}")
            self.step()
        return self.ended

    def step(self):
        """The next event."""
        if (action := self.agenda.next()) is None:
            raise ViolationError("nothing happens any more")
        try:
            action()
            if self.checked:
                self._check()
        except ViolationError as violation:
            self.note("VIOLATION", str(violation))
            raise

    def run_on(self, seconds):
        """What still happens after the end."""
        until = self.now + seconds
        while self.agenda.next_time <= until:
            self.step()

    def at(self, time, action):
        self.agenda.at(time, action)

    def note(self, who, what):
        self.transcript.note(self.now, who, what)

    # What a test asks of it

    @property
    def now(self):
        return self.agenda.now

    def clock(self, process):
        """The time that a process sees."""
        return self.now + process.offset

    def process(self, name):
        """The process at an address: a client's name, a server's, `coordinator` or `shard-N`."""
        if name in self.clients:
            return self.clients[name]
        return self.servers[self._number(name)]

    @property
    def addresses(self):
        """The servers' machines."""
        return [COORDINATOR, *(f"shard-{number}" for number in range(len(self.shards)))]

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
        return [event[1] for event in self.events if isinstance(event, tuple) and event[0] == shard]

    # How it works

    def _name(self):
        self._names += 1
        return self._names - 1

    def _number(self, address):
        return 0 if address == COORDINATOR else int(address.rpartition("-")[2])

    def _start(self, name, kind, seconds):
        client = ClientProcess(name=name, machine=None, seconds=seconds, weights=None)
        self.clients[name] = client
        self._boot(client, kind)
        return client

    def _boot(self, client, kind):
        """A new session of the client, in a process that has nothing in memory."""
        session = f"{client.name}.{client.life}".encode().ljust(16)
        client.machine = kind(session, client.name, "same") if kind is Worker else kind(session, client.name)
        client.weights = np.zeros(self.size, np.float32)
        if kind is Worker and self.pull_codecs:
            client.reader = ReplicaReader([pull.codec for pull in self.pull_codecs], self.slices)
        if kind is Worker and self.push_codecs:
            buffers = Buffers(room_for(self.push_codecs, self.rules.microbatches))
            repeats = self.rules.consistency.is_synchronous
            client.encoder = Encoder(self.push_codecs, self.slices, 0, buffers, repeats=repeats)
        self.programs.perform(client, client.machine.start(self.clock(client)))

    def _check(self):
        for address in self.delivery.touched:
            if address == COORDINATOR:
                self.invariants.check_coordinator(self.coordinator)
            else:
                self.invariants.check_shard(self.shards[address])
        self.delivery.touched.clear()

    def _tick(self):
        """Machines are called twenty times a second where their process is awake."""
        now = self.now
        for number, server in enumerate(self.servers):
            if not server.is_blocked(now):
                if number == 0:
                    self.delivery.deliver(self.coordinator.tick(self.clock(server)), COORDINATOR)
                if outputs := self.shards[number].tick(self.clock(server)):
                    self.delivery.deliver(outputs, number)
        for client in list(self.clients.values()):
            if client.alive and not client.is_blocked(now):
                self.programs.perform(client, client.machine.tick(self.clock(client)))
        self.at(now + self._tick_seconds, self._tick)
