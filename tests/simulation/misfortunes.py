"""What a seed does to a run: members, network and misfortunes drawn from it; and what must come out all the same.

Misfortunes last shorter than what the protocol says ends a run (a shard that is silent for 60 s), and end: after that
every run has to. In some synchronous runs every shard has a follower; then servers are killed too, and started again.
"""

import random

import numpy as np

from ps_vae.ps.outbox import Member

from .first_server import NOT_FOUND
from .gradients import chaotic_gradient, sequential_versions, small_step, unit_gradient
from .ledger import WITNESS, ViolationError
from .network import Network
from .world import World

# Virtual seconds in which a run of this size has to end, whatever happens to it; those with followers are longer.
PATIENCE = 600.0

# The longest that a server is kept from others: less than the silence after which a run fails, and time to repeat.
_LONGEST_SILENCE = 20.0

_TRAINED = 16


class Misfortunes:
    """The run of a seed."""

    def __init__(self, seed):
        self.seed = seed
        draw = self._draw = random.Random(seed)
        self.consistency = draw.choice(["bsp", "bsp", "ssp:1", "ssp:3", "asp"])
        self.is_synchronous = self.consistency == "bsp"
        self.microbatches = draw.randint(1, 9)
        self.steps = draw.randint(1, 25)
        self.delay = draw.choice([0, 0, 1]) if self.is_synchronous else 0
        delays = draw.choice([(0.0001, 0.002), (0.0001, 0.05), (0.01, 0.5)])
        shards = draw.randint(1, 3)
        # Drawn apart: the other runs are what they would be without it.
        more, others = random.Random(f"followers of {seed}"), random.Random(f"backups and faults of {seed}")
        self.is_followed = self.is_synchronous and more.random() < 0.6
        if self.is_followed:
            self.steps += more.randint(0, 25)
        self.world = World(
            size=(WITNESS + _TRAINED) * shards,
            checked=True,
            witnessed=True,
            seed=seed,
            shards=shards,
            workers=draw.randint(1, 4),
            evaluators=draw.choice([0, 0, 1, 2]),
            microbatches=self.microbatches,
            steps=self.steps,
            consistency=self.consistency,
            delay=self.delay,
            milestone=draw.choice([1, 3, 7, 100]),
            network=Network(draw.choice([0.0, 0.02, 0.1, 0.2]), draw.choice([0.0, 0.1]), delays),
            gradient=chaotic_gradient if self.is_synchronous else unit_gradient,
            backup_workers=others.choice([0, 1, 2]) if self.is_synchronous else 0,
            seconds=more.choice([0.02, 0.1, 0.4]) if self.is_followed else 0.01,
            replicas=1 if self.is_followed else 0,
            **({"update": small_step} if self.is_synchronous else {}),
        )
        self.is_told_to_stop = draw.random() < 0.3
        self.is_cut_off = False
        self._arrange_clients()
        self.faulty = self._add_faulty(others)
        self._arrange_servers()
        self._arrange_network()
        if self.is_followed:
            self._arrange_deaths(more)
            self._arrange_deaths_of_the_first(random.Random(f"first servers of {seed}"))
        if self.is_told_to_stop:
            self._at(self.world.stop)

    def check(self):
        """Run it; a ViolationError, or an AssertionError of NumPy, where something is not as promised."""
        ended = self.world.run(3 * PATIENCE if self.is_followed else PATIENCE)
        self._check_blame()
        self._check_end(ended)
        self._check_ledger()
        self._check_weights()
        self._check_evaluators(ended)

    def _arrange_clients(self):
        world, draw = self.world, self._draw
        # One worker that nothing happens to, so that the run can end.
        for name in list(world.workers)[1:]:
            match draw.choice(["nothing", "slow", "dies", "comes back", "flaps", "pauses", "pauses twice", "jumps"]):
                case "slow":
                    world.clients[name].seconds = draw.choice([0.1, 0.5, 3.0])
                case "dies":
                    self._at(lambda name=name: self._kill(name))
                case "comes back":
                    self._flap(name, 1, draw.choice([0.1, 2.0, 30.0]))
                case "flaps":
                    self._flap(name, draw.randint(3, 12), draw.choice([0.05, 0.5, 4.0]))
                case "pauses":
                    self._at(lambda name=name: world.pause(name, draw.choice([0.5, 3.0, 20.0, 90.0])))
                case "pauses twice":
                    self._at(lambda name=name: world.pause(name, draw.uniform(0, 8)))
                    self._at(lambda name=name: world.pause(name, draw.uniform(0, 8)))
                case "jumps":
                    self._at(lambda name=name: world.jump(name, draw.uniform(0, 60)))
        for name in world.evaluators:
            if draw.random() < 0.3:
                self._at(lambda name=name: self._kill(name))
        for _ in range(draw.choice([0, 0, 1, 2])):
            self._at(lambda: world.add_worker(draw.choice([None, 0.2])))

    def _add_faulty(self, draw):
        """In some runs a worker whose gradients are none, and that may say nothing of it."""
        if draw.random() < 0.8:
            return None
        faulty = self.world.add_worker()
        faulty.spoils, faulty.is_mute = _with_nan, draw.random() < 0.5
        return faulty.name

    def _arrange_servers(self):
        world, draw = self.world, self._draw
        for server in world.servers:
            server.offset = draw.uniform(0, 1000)
            match draw.choice(["nothing", "nothing", "pauses", "jumps", "jumps twice"]):
                case "pauses":
                    longest = 60.0 if server is world.servers[0] else _LONGEST_SILENCE
                    self._at(lambda name=server.name, longest=longest: self._pause(name, draw.uniform(0, longest)))
                case "jumps":
                    self._at(lambda name=server.name: world.jump(name, draw.uniform(0, 60)))
                case "jumps twice":
                    self._at(lambda name=server.name: world.jump(name, draw.uniform(0, 60)))
                    self._at(lambda name=server.name: world.jump(name, draw.uniform(0, 2)))

    def _arrange_deaths(self, draw):
        """Servers are killed one after the other, and started again, mostly when somebody can take their place; or they
        stand still until somebody did."""
        is_careful, time = draw.random() < 0.8, 0.0
        for _ in range(draw.randint(1, 6)):
            time += draw.choice([0.2, 0.6, 2.0, 6.0]) * draw.uniform(0.5, 1.5)
            who = draw.choice(["leader", "leader", "follower"])
            shards = len(self.world.shards)
            number = draw.randrange(1 if who == "leader" and shards > 1 else 0, shards)
            if draw.random() < 0.3:
                words = (number, who, draw.uniform(2, 15))
                self.world.at(time, lambda words=words: self._hold_up_server(*words))
            else:
                words = (number, who, draw.random() < 0.7, draw.choice([0.1, 1.0, 7.0]), 20 if is_careful else None)
                self.world.at(time, lambda words=words: self._kill_server(*words))

    def _arrange_deaths_of_the_first(self, draw):
        """The coordinator's process is killed, with the shard that it has or whoever has that then."""
        time = 0.0
        for _ in range(draw.choice([0, 1, 1, 2, 3])):
            time += draw.choice([0.6, 2.0, 6.0]) * draw.uniform(0.5, 1.5)
            seconds, tries = draw.choice([0.1, 1.0, 7.0]), draw.choice([20, 20, 20, None])
            if draw.random() < 0.7:
                self.world.at(time, lambda words=(seconds, tries): self._kill_first(*words))
            else:
                words = (0, "leader", draw.random() < 0.7, seconds, tries)
                self.world.at(time, lambda words=words: self._kill_server(*words))

    def _arrange_network(self):
        world, draw = self.world, self._draw
        clients, shards = list(world.clients), world.addresses[1:]
        for _ in range(draw.choice([0, 0, 1, 2])):
            some = draw.sample(clients, draw.randint(1, len(clients)))
            server = draw.choice(world.addresses)
            # The coordinator and the first shard are one process.
            ways = [(some, ["coordinator"]), (some, [server]), (some, shards), (shards[1:], ["coordinator"])]
            one, other = draw.choice(ways)
            seconds = draw.choice([0.5, 3.0, _LONGEST_SILENCE])
            is_noticed = draw.random() < 0.5
            self._at(lambda one=one, other=other, s=seconds, n=is_noticed: self._part(one, other, s, n))

    def _at(self, action):
        self.world.at(self._draw.choice([0.02, 0.5, 2.0, 10.0]) * self._draw.random(), action)

    def _kill(self, name):
        if self.world.clients[name].alive:
            self.world.kill(name, noticed=self._draw.random() < 0.5)

    def _kill_server(self, number, who, noticed, seconds, tries):
        """`seconds`: until it is started again; `tries`: how often to see whether nobody's place is empty then."""
        world, server = self.world, self._server(number, who)
        if server is world.servers[0]:
            self._kill_first(seconds, tries)
            return
        # Here nobody comes in the place of a server that dies before the run has begun.
        if server is None or not world.coordinator.is_started:
            return
        if tries is not None and world.orphans(server):
            if tries:
                world.at(world.now + 0.5, lambda: self._kill_server(number, who, noticed, seconds, tries - 1))
            return
        world.kill_server(server.name, noticed=noticed)
        world.at(world.now + seconds, lambda: world.restart_server(server.name))

    def _kill_first(self, seconds, tries):
        """The coordinator's process, whichever shard it has."""
        world, server = self.world, self.world.servers[0]
        if not world.first.is_at_work or not world.coordinator.is_started:
            return
        if tries is not None and (world.orphans(server) or not server.disk.get("known")):
            if tries:
                world.at(world.now + 0.5, lambda: self._kill_first(seconds, tries - 1))
            return
        world.first.kill()
        world.at(world.now + seconds, world.first.restart)

    def _hold_up_server(self, number, who, seconds):
        if (server := self._server(number, who)) is not None:
            self._pause(server.name, seconds)

    def _server(self, number, who):
        """The `leader` or the `follower` of a shard, if it lives."""
        member = self.world.coordinator.shards[number]
        if who == "leader":
            return self.world.server_of(member.session)
        return None if member.follower is None else self.world.server_of(member.follower.session)

    def _flap(self, name, times, seconds):
        """Dies and is started again under a new session, and that again and again."""
        world, draw = self.world, self._draw
        time = draw.choice([0.02, 0.5, 2.0, 10.0]) * draw.random()
        for _ in range(times):
            world.at(time, lambda: self._kill(name))
            time += seconds * draw.random()
            world.at(time, lambda: world.restart(name))
            time += seconds * draw.random()

    def _pause(self, name, seconds):
        self.is_cut_off = True
        self.world.pause(name, seconds)

    def _part(self, one, other, seconds, is_noticed):
        """`is_noticed`: the connections break when the partition is half over."""
        world = self.world
        self.is_cut_off = True
        world.part(one, other, seconds)
        for name in one if is_noticed else ():
            if name in world.clients:
                world.at(world.now + seconds / 2, lambda name=name: world.disconnect(name, other))

    def _check_end(self, ended):
        world = self.world
        if ended.failed and self._is_alone_with_its_faults(ended.reason):
            return
        if ended.failed and world.unguarded:
            # A leader and its follower were lost together.
            if not (self.is_told_to_stop or "is silent for 60 s" in ended.reason or NOT_FOUND in ended.reason):
                raise ViolationError(f"the run fails: {ended.reason}")
        elif ended.failed and NOT_FOUND in ended.reason:
            # Who is cut off for longer than is waited for is not found.
            if not self.is_cut_off:
                raise ViolationError(f"the run fails: {ended.reason}")
        elif ended.failed:
            # A stopping run has seconds to make its shards agree; with so many messages lost that may not be enough.
            # Where blocks are applied as they come, a slow worker's may be missing: half a step cannot be taken back.
            has_parts = any(shard._open.arrivals for shard in world.shards)
            if not self.is_told_to_stop or not (world.network.drop >= 0.1 or self.is_cut_off or has_parts):
                raise ViolationError(f"the run fails: {ended.reason}")
        elif (ended.reason == "done") != (world.shards[0].version == self.steps) and not self.is_told_to_stop:
            raise ViolationError(f"the run is {ended.reason!r} at version {world.shards[0].version} of {self.steps}")
        elif world.snapshots or world.coordinator.is_started:
            version, last = world.shards[0].version, max(world.snapshots)
            if last != version and not (ended.reason == "stopped" and last < version <= last + 2):
                raise ViolationError(
                    f"the run is {ended.reason!r} at version {version}, its last snapshot is of {last}"
                )

    def _is_alone_with_its_faults(self, reason):
        """Where nobody else is there for a while it may be the gradient, and not the faulty worker."""
        others = [worker for worker in self.world.coordinator.backlog.crew if worker.name != self.faulty]
        return self.faulty is not None and not others and ("not-finite" in reason or "is nan" in reason)

    def _check_blame(self):
        blamed = {client.name for client in self.world.coordinator.clients.values() if client.refused}
        blamed |= {event.name for event in self.world.events if isinstance(event, Member) and event.change == "put out"}
        if blamed - {self.faulty}:
            raise ViolationError(f"{sorted(blamed)} are blamed, of whom only {self.faulty} is faulty")

    def _check_ledger(self):
        """What shards say that they have applied is what they have counted."""
        for number, shard in enumerate(self.world.shards):
            counted = self.world.ledger.leading[number].steps
            said = sorted(event.step for event in self.world.applied(number))
            has = sorted([*range(shard.before), *shard.beyond])
            if self.is_followed:
                # A leader may die before it says what its follower has; one step may wait for a follower.
                is_once = len(set(said)) == len(said) or self.world.unguarded
                said = has if is_once and set(said) <= set(has) else said
                counted = counted[: len(has)] if len(counted) == len(has) + 1 else counted
            if not said == counted == has:
                raise ViolationError(
                    f"shard {number} says that it applied steps {said}, it has counted all of {counted}"
                )

    def _check_weights(self):
        world, trained = self.world, self.world.ledger.trained
        versions = {}
        if self.is_synchronous:
            versions = sequential_versions(self.steps, self.microbatches, world.size, delay=self.delay)
        for version, weights in world.snapshots.items():
            expected = versions.get(version, np.full(world.size, version * self.microbatches, np.float32))
            np.testing.assert_array_equal(weights[trained], expected[trained], err_msg=f"snapshot {version}")

    def _check_evaluators(self, ended):
        world = self.world
        present = {client.name for client in world.coordinator.clients.values()}
        for evaluator in world.evaluators.values():
            for version, weights in evaluator.measured:
                if version in world.snapshots:
                    np.testing.assert_array_equal(weights, world.snapshots[version], err_msg=f"measured {version}")
            is_there = ended.reason == "done" and evaluator.name in present and evaluator.alive
            if is_there and (not evaluator.measured or evaluator.measured[-1][0] != self.steps):
                raise ViolationError(f"{evaluator.name} missed the last milestone")


def _with_nan(gradient, step, index):
    """In a place that is no witness."""
    gradient[-1] = np.nan
    return gradient
