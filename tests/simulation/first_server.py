"""The coordinator's process: it dies with the shard that it may have, is started again, and looks for its servers.

On its disk is whether they have all of the run. Where they do not, or are not found, the run would go on from a
checkpoint: here it ends as a failed one.
"""

from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.gathering import Gathering
from ps_vae.ps.outbox import COORDINATOR, RunEnded
from ps_vae.ps.shard import Shard

from .processes import ServerProcess

_TICKETS = 1 << 32

NOT_FOUND = "the run cannot be taken up from its servers"


class FirstServer:
    """Carries out what happens to the first server, in a world.

    gathering  while it looks for the others
    times      that it was started
    found      times that it has found them
    """

    def __init__(self, world):
        self._world = world
        self.gathering = None
        self.times = 1
        self.found = 0

    @property
    def process(self):
        return self._world.servers[0]

    @property
    def machine(self):
        """Who is spoken to at the coordinator's address."""
        return self.gathering or self._world.coordinator

    @property
    def is_at_work(self):
        """Whether there is a coordinator."""
        return self.process.alive and self.gathering is None

    def kill(self):
        """Everybody sees the connection break, and makes another one when it is there again."""
        world, server = self._world, self.process
        world.note(server.name, "is killed, and the coordinator with it")
        world.unguarded |= world.orphans(server)
        world.disturb(0.0)
        for client in world.clients.values():
            for address in {COORDINATOR, server.name}:
                client.reconnect(address)
        for other in world.servers[1:]:
            if isinstance(other.machine, Shard):
                world.forget(server.sender, other.name)
        server.die()
        self.gathering = None

    def restart(self):
        """Whoever watches over it starts it again."""
        world, server = self._world, self.process
        world.note(server.name, "is started again, and looks for the others")
        server.alive, server.asleep_until = True, 0.0
        self.times += 1
        world.disturb(0.0)
        world.delivery.forget_leaders()
        if not server.disk.get("known"):
            self._give_up("nobody had noted that its servers have it")
            return
        self.gathering = Gathering(world.rules, world.slices)

    def tick(self):
        """What it says by itself."""
        world, server = self._world, self.process
        now = world.clock(server)
        if self.gathering is None:
            world.delivery.deliver(world.coordinator.tick(now), COORDINATOR)
            if outputs := world.server_programs.lost():
                world.delivery.deliver(outputs, COORDINATOR)
            server.disk["known"] = server.disk.get("known") or world.coordinator.can_be_taken_up
            return
        for ended in self.gathering.tick(now):
            if ended.failed:
                self._give_up(ended.reason)
            else:
                self._go_on(self.gathering.found)

    def _go_on(self, found):
        world = self._world
        world.note(COORDINATOR, f"has found its servers at versions {[member.before for member in found.members]}")
        self.gathering, self.found = None, self.found + 1
        world.invariants.taken_up(found)
        tickets = (self.times - 1) * _TICKETS
        world.coordinator = Coordinator(
            world.rules,
            world.slices,
            self.process.name,
            b"{}",
            world.initial,
            backup_workers=world.coordinator.backlog.backup_workers,
            found=found,
            tickets=tickets,
        )
        if any(not member.is_up for member in found.members):
            # Who followed leads now, and another one is started to follow.
            place = len(world.servers)
            world.servers.append(ServerProcess(name=f"server-{place}", place=place))
        world.delivery.deliver(world.coordinator.begin(world.clock(self.process)), COORDINATOR)

    def _give_up(self, why):
        world = self._world
        world.note(COORDINATOR, f"goes back to a checkpoint: {why}")
        world.ended = RunEnded(True, f"{NOT_FOUND}: {why}")
