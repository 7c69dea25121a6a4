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
from ps_vae.ps.identity import FIRST
from ps_vae.ps.messages import PROTOCOL, Join
from ps_vae.ps.outbox import COORDINATOR
from ps_vae.ps.partition import partition
from ps_vae.ps.replica import ReplicaReader
from ps_vae.ps.rules import RunRules
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState
from ps_vae.ps.worker import Worker

from .agenda import Agenda
from .delivery import Delivery
from .first_server import FirstServer
from .gradients import Gradient, add_up, unit_gradient
from .invariants import Invariants
from .ledger import Ledger, ViolationError
from .network import Network
from .processes import ClientProcess, ServerProcess, WatchedBuffers
from .programs import Programs
from .server_programs import ServerPrograms
from .transcript import KEPT, Transcript

TICK_SECONDS = 0.05


class World:
    """A run of `workers` workers and `shards` shards over `size` parameters.

    checked     whether invariants are checked after every event
    witnessed   whether a ledger is kept: `size` is then to be 64 a shard or more, of which 48 are not trained
    push, pull  codecs, in the words of users; so is how a step is made of microbatches, `aggregate`
    encodes     whether messages travel as frames, as they do outside
    kept        lines of the transcript
    replicas    followers of each shard, in servers of their own: 0 or 1
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
        replicas=0,
    ):
        self.random = random.Random(seed)
        self.network = dataclasses.replace(network or Network(), partitions=[])
        self.transcript = Transcript(kept)
        self.agenda = Agenda()
        self.gradient = gradient
        rule = dataclasses.replace(parse_consistency(consistency), delay=delay, first=version)
        aggregation = aggregation_for(aggregate)
        secret = b"" if aggregation is None else b"secret-of-a-test"
        self.rules = RunRules(
            b"run-of-the-tests",
            microbatches,
            steps,
            rule,
            milestone,
            metrics=2,
            aggregation=aggregation,
            secret=secret,
        )
        self.seconds = seconds
        self.size = size
        self.checked = checked
        self.encodes = encodes
        self.slices = slices = partition(size, shards)
        whole = ShardState(version, np.zeros(size, np.float32) if initial is None else initial, {})
        self.ledger = None
        if witnessed:
            self.ledger = Ledger(slices, self.rules, version)
            whole.weights = self.ledger.initial(whole.weights)
            self.gradient = self.ledger.gradient(gradient)
        make_push, make_pull = push_codec_for(push), pull_codec_for(pull)
        products = Products(1, weight_gradient)
        self.push_codecs = [make_push(piece.size, (), products) for piece in slices] if make_push else []
        self.pull_codecs = [make_pull(piece.size, (), seed) for piece in slices] if make_pull else []
        self._update, self._look_ahead = update, look_ahead
        self.coordinator = Coordinator(
            self.rules, slices, "server-0", b"{}", whole, awaited=awaited, backup_workers=backup_workers
        )
        self.initial = whole
        self.servers = [ServerProcess(name=f"server-{place}", place=place) for place in range(shards * (1 + replicas))]
        self.shards, self._tallies = [], {}
        for member, server in zip(self.coordinator.shards, self.servers, strict=False):
            piece = slice(member.slice.start, member.slice.stop)
            identity = FIRST if server.place == 0 else server.identity
            # The first one is in the coordinator's process.
            if server.place:
                self.coordinator.handle(server.sender, Join(PROTOCOL, server.session, server.name, False), 0.0)
            state = ShardState(version, whole.weights[piece].copy(), {})
            server.machine = self.make_shard(member.number, state, identity)
            self.shards.append(server.machine)
            self.lead(server.machine)
        # Shards whose leader was killed while nobody could take its place; until when something was done to the world.
        self.unguarded = set()
        self.calm_since = 0.0
        self.clients = {}
        self.events = []
        self.ended = None
        self.snapshots = {}
        self.refused = []
        # Steps of the first shard: what the coordinator was told of, and those in its own process.
        self.reported, self.applied_here = [], []
        self.first = FirstServer(self)
        self.invariants = Invariants(self)
        self.programs = Programs(self)
        self.server_programs = ServerPrograms(self)
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
            self.forget(sender, address)

    def kill_server(self, name, *, noticed):
        """The server is gone, and what it held; `noticed`: its connections break, else it falls silent."""
        server = self.process(name)
        self.note(name, f"is killed, and {'its connections break' if noticed else 'nobody is told'}")
        sender = server.sender
        self.unguarded |= self.orphans(server)
        self.disturb(0.0)
        server.die()
        server.gone_at = self.now if noticed else None
        if noticed:
            for address in self.addresses[1:]:
                self.forget(sender, address)

    def restart_server(self, name):
        """The server is started again where it died, and wants to follow somebody."""
        server = self.process(name)
        self.note(name, "is started again")
        server.alive, server.asleep_until, server.gone_at = True, 0.0, None
        self.disturb(0.0)

    def pause(self, name, seconds):
        """The process stands still; what comes meanwhile waits, and what it computes ends so much later."""
        process = self.process(name)
        self.note(name, f"is paused for {seconds:.2f} s")
        process.asleep_until = max(process.asleep_until, self.now + seconds)
        self.disturb(seconds)
        self.at(process.asleep_until, lambda: process.read(self.now))

    def jump(self, name, seconds):
        """The clock of a process jumps forwards."""
        self.note(name, f"finds its clock {seconds:.2f} s on")
        self.process(name).offset += seconds
        self.disturb(0.0)

    def part(self, one, other, seconds):
        """Nothing passes between two sets of addresses for so long."""
        self.note("the network", f"parts {', '.join(sorted(one))} from {', '.join(sorted(other))} for {seconds:.2f} s")
        self.network.part(one, other, self.now, seconds)
        self.disturb(seconds)

    def stop(self):
        if not self.first.is_at_work:
            self.at(self.now + 1.0, self.stop)
            return
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
        """The process at an address: a client's name, a server's, or `coordinator`."""
        if name in self.clients:
            return self.clients[name]
        return self.servers[0 if name == COORDINATOR else int(name.rpartition("-")[2])]

    def server_of(self, session):
        """The server that lives under a session, the first one's being None; None where it has died."""
        if session is None:
            return self.servers[0] if self.servers[0].machine is not None else None
        return next((server for server in self.servers if server.alive and server.session == session), None)

    def orphans(self, server):
        """The shards that nobody could lead if this server died now, as far as the coordinator knows. Who stands still
        is not reckoned with: it may be let go before its leader is missed."""
        found = set()
        for member in self.coordinator.shards:
            leader = self.server_of(member.session)
            follower = None if member.follower is None else self.server_of(member.follower.session)
            if follower is server and (leader is None or leader.is_blocked(self.now)):
                found.add(member.number)
            if leader is server:
                is_there = follower is not None and not follower.is_blocked(self.now)
                is_guarded = is_there and self.coordinator._fleet.can_be_replaced(member)
                # What it says last may still be under way.
                gives_up = isinstance(server.machine, Shard) and server.machine._replication.state != "waited for"
                if not is_guarded or gives_up:
                    found.add(member.number)
        return found

    @property
    def addresses(self):
        """The coordinator's, and the servers'."""
        return [COORDINATOR, *(server.name for server in self.servers)]

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

    def disturb(self, seconds):
        self.calm_since = max(self.calm_since, self.now + seconds)

    def _name(self):
        self._names += 1
        return self._names - 1

    def make_shard(self, number, state, identity):
        """A machine of a shard, from a state, with what a server has for it."""
        piece, update = self.slices[number], self._update
        tally = None
        if self.ledger is not None:
            tally = self.ledger.tally(number, state.version)
            update = tally.update(update)
        codecs = [made[number] if made else None for made in (self.push_codecs, self.pull_codecs)]
        shard = Shard(
            number,
            self.rules,
            state,
            update,
            WatchedBuffers(piece.size),
            look_ahead=self._look_ahead,
            codec=codecs[0],
            pull=codecs[1],
            identity=identity,
        )
        shard.buffers.published = shard._slice.published.arrays
        self._tallies[shard] = tally
        return shard

    def lead(self, shard):
        """This machine leads its shard from now on."""
        self.shards[shard.number] = shard
        if self.ledger is not None:
            self.ledger.leading[shard.number] = self._tallies[shard]

    def forget(self, sender, address):
        """The server at an address sees the connection that it knows by that break."""
        server = self.process(address)

        def see():
            now = self.clock(server)
            if address == COORDINATOR:
                self.delivery.deliver(self.first.machine.forget(sender, now), COORDINATOR)
            elif isinstance(server.machine, Shard):
                self.delivery.deliver(server.machine.forget(sender, now), server.place)

        server.inbox.append(see)
        server.read(self.now)

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
                if self.first.is_at_work:
                    self.invariants.check_coordinator(self.coordinator)
            else:
                self.invariants.check_server(self.servers[address])
        self.delivery.touched.clear()

    def _tick(self):
        """Machines are called twenty times a second where their process is awake."""
        now = self.now
        for place, server in list(enumerate(self.servers)):
            if server.alive and not server.is_blocked(now):
                if place == 0:
                    self.first.tick()
                if outputs := self.server_programs.tick(server):
                    self.delivery.deliver(outputs, place)
        for client in list(self.clients.values()):
            if client.alive and not client.is_blocked(now):
                self.programs.perform(client, client.machine.tick(self.clock(client)))
        self.at(now + self._tick_seconds, self._tick)
