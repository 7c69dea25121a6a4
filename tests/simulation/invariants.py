"""What must hold after every event, of the machine that the event happened to."""

from ps_vae.ps.backlog import Backlog
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.follower import Follower
from ps_vae.ps.shard import Shard

from .ledger import ViolationError

# Where no message takes longer and none is lost, a follower has caught up after so long.
_GOOD_DELAY = 0.05
_CATCHING_UP_SECONDS = 8.0


class Invariants:
    """Remembers what the machines had before.

    highest  the newest version of each shard that a leader has published
    """

    def __init__(self, world):
        self._world = world
        self._seen = {}
        self._lowest = 0
        self._weights = [{} for _ in world.shards]
        self._incarnations = [0 for _ in world.shards]
        self.highest = [0 for _ in world.shards]
        self._guarded_at = [0.0 for _ in world.shards]
        for server in world.servers:
            self.check_server(server)

    def check_server(self, server) -> None:
        """What it holds, whether it leads or follows."""
        machine = server.machine
        if isinstance(machine, Shard):
            self.check_shard(machine)
            self._check_leader(server, machine)
        elif isinstance(machine, Follower) and machine.shard is not None:
            self.check_shard(machine.shard)
        if len(self._world.servers) > len(self._world.shards):
            self._check_heirs()

    def taken_up(self, found) -> None:
        """A coordinator that was started again goes on. Where a shard's follower was given up before its leader died,
        the run goes back to what that follower has."""
        for member in found.members:
            if not member.is_up and member.number in self._world.unguarded:
                self.highest[member.number] = min(self.highest[member.number], member.before)
                self._lowest = min(self._lowest, found.lowest)

    def check_shard(self, shard: Shard) -> None:
        """Its version never goes back; what is published holds still, and is what any machine of the shard had."""
        version, published = self._seen.get(shard, (shard.version, {}))
        if shard.version < version:
            raise ViolationError(f"shard {shard.number} went back from version {version} to {shard.version}")
        if any(step <= shard.before for step in shard.beyond):
            raise ViolationError(f"shard {shard.number} is at {shard.before}, with {sorted(shard.beyond)} beyond")
        turns, now = shard.buffers.turns, {}
        for key, array in shard._slice.published.arrays().items():
            place = key, turns.get(key)
            now[place] = text = array.tobytes()
            if published.get(place, text) != text:
                raise ViolationError(f"shard {shard.number} wrote to weights that are published")
        self._seen[shard] = shard.version, now
        if shard.rules.consistency.is_synchronous:
            weights = shard.weights.tobytes()
            if self._weights[shard.number].setdefault(shard.version, weights) != weights:
                raise ViolationError(f"shard {shard.number} has two version {shard.version}, of different bits")

    def check_coordinator(self, coordinator: Coordinator) -> None:
        """Each microbatch of an open step is to be had once; it knows of no step that a shard does not have."""
        backlog = coordinator.backlog
        if backlog.lowest < self._lowest:
            raise ViolationError(f"the coordinator went back from version {self._lowest} to {backlog.lowest}")
        self._lowest = backlog.lowest
        if self._lowest > min(map(self._version, coordinator.shards)):
            raise ViolationError(f"the coordinator is at version {self._lowest}, before some shard")
        if len(self._world.servers) > len(self._world.shards):
            self._check_promotions()
            self._check_heirs()
            self._check_that_followers_are_ready()
        _check_work(backlog)
        for work in backlog.steps.values():
            for lease in (*work.leases.values(), *work.backups.values()):
                client = coordinator.clients.get(lease.session)
                if not lease.delivered and (client is None or client.lease != lease.ticket):
                    raise ViolationError(f"step {work.step}: nobody holds lease {lease.ticket} of {lease.session!r}")
        active = {client.session for client in coordinator.clients.values() if client.is_active}
        if active != {worker.session for worker in backlog.crew}:
            raise ViolationError(f"{active} are active, the backlog reckons with {[*backlog.crew]}")
        for client in coordinator.clients.values():
            if client.idle and client.lease is not None:
                raise ViolationError(f"{client.name} is idle and holds lease {client.lease}")

    def _version(self, member) -> int:
        """What a shard is at; who is to lead it may not know that yet."""
        heir = self._world.server_of(member.session)
        return max(self._world.shards[member.number].before, -1 if heir is None else _version(heir))

    def _check_leader(self, server, shard: Shard) -> None:
        """Who has been deposed publishes nothing that its successor does not have."""
        number = shard.number
        if shard.version <= self.highest[number]:
            return
        heir = self._world.server_of(self._world.coordinator.shards[number].session)
        if heir not in (None, server) and _version(heir) < shard.version:
            raise ViolationError(f"{server.name}, deposed, publishes version {shard.version} of shard {number}")
        self.highest[number] = shard.version

    def _check_promotions(self) -> None:
        """Whoever is told to lead has every version that was published."""
        for member in self._world.coordinator.shards:
            if member.incarnation > self._incarnations[member.number]:
                self._incarnations[member.number] = member.incarnation
                self._check_heir(member.number, self._world.server_of(member.session), "is to lead")

    def _check_heirs(self) -> None:
        """So does whoever could be told to at any time."""
        for member in self._world.coordinator.shards:
            if self._world.coordinator._fleet.can_be_replaced(member):
                self._check_heir(member.number, self._world.server_of(member.follower.session), "is relied on for")

    def _check_that_followers_are_ready(self) -> None:
        """Where the network is good and every server has its shard, each has a follower that its leader waits for."""
        world = self._world
        network, now = world.network, world.now
        is_good = (
            network.drop == 0.0
            and network.delay[1] <= _GOOD_DELAY
            and all(one.machine is not None or one.place == 0 for one in world.servers)
        )
        for member in world.coordinator.shards:
            follower = member.follower
            is_guarded = follower is not None and member.relied_on is not None
            if is_guarded and follower.following == member.relied_on and member.relied_on not in member.over:
                self._guarded_at[member.number] = now
            waited = now - max(self._guarded_at[member.number], world.calm_since)
            if is_good and waited > _CATCHING_UP_SECONDS and not world.unguarded and world.coordinator.is_started:
                raise ViolationError(f"shard {member.number} has no follower to rely on, {waited:.0f} calm seconds")

    def _check_heir(self, number, server, what) -> None:
        # One that has died has nothing; nobody has heard of that yet.
        if server is not None and _version(server) < self.highest[number]:
            text = f"{server.name} {what} shard {number} and has version {_version(server)}"
            raise ViolationError(f"{text}, {self.highest[number]} is published")


def _version(server) -> int:
    """What a server has; -1 where that is nothing."""
    machine = server.machine
    if isinstance(machine, Follower):
        machine = machine.shard
    return -1 if machine is None else machine.version


def _check_work(backlog: Backlog) -> None:
    for step, work in backlog.steps.items():
        if not backlog.lowest <= step < backlog.rules.steps:
            raise ViolationError(f"step {step} is open at version {backlog.lowest}")
        held = [*work.pool, *(block for lease in work.leases.values() for block in lease.blocks)]
        held.sort(key=lambda block: block.start)
        end = 0
        for block in held:
            if block.start != end:
                raise ViolationError(f"step {step}: {held} are not all, each once")
            end = block.stop
        if end != work.microbatches:
            raise ViolationError(f"step {step}: {held} are not all, each once")
        for backup in work.backups.values():
            backed = work.leases.get(backup.backs)
            if backed is None or backed.delivered or backed.blocks != backup.blocks:
                raise ViolationError(f"step {step}: {backup} does not do what {backed} does")
            if backed.session == backup.session:
                raise ViolationError(f"step {step}: {backup.session!r} backs itself")
