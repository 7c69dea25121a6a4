"""What the program around a server's machine does: it joins, follows, leads, and comes back as a follower."""

import itertools

from ps_vae.errors import PeerError
from ps_vae.ps.follower import Follower
from ps_vae.ps.messages import (
    PROTOCOL,
    Admit,
    Copy,
    Error,
    Follow,
    Join,
    Lead,
    Pull,
    Push,
    Replicate,
    Replicated,
    Who,
)
from ps_vae.ps.outbox import COORDINATOR, Send
from ps_vae.ps.shard import FromOutside, Shard

_RETRY_SECONDS = 1.0
# After so long without a connection a server counts as gone.
_GONE_SECONDS = 0.5

_TO_LEADER = (Push, Pull, Follow, Replicated)


class ServerPrograms:
    """Carries out what servers do around their machines, in a world."""

    def __init__(self, world):
        self._world = world
        self._drawn = itertools.count()

    def take(self, server, sender, message):
        """What a server answers to a message that it has read. PeerError where its machine refuses it."""
        now, machine = self._world.clock(server), server.machine
        match message:
            case Admit() if machine is None:
                return self._follow(server, message)
            case Error() if sender == COORDINATOR and _sends_away(machine, message):
                self._join_again(server, message)
            case _ if machine is None and server.place == 0:
                raise PeerError("not-here", "the first server has no shard (any more)")
            case _ if isinstance(message, _TO_LEADER) and not isinstance(machine, Shard):
                server.doorstep.append((sender, message))
            case _ if isinstance(machine, Shard) and isinstance(message, FromOutside):
                return machine.handle(sender, message, now)
            case Copy() | Replicate() | Lead() | Who() | Error() if isinstance(machine, Follower):
                outputs = machine.handle(message, now)
                if machine.state == "leading":
                    self._lead(server, machine.shard)
                return outputs
        return []

    def tick(self, server):
        """What it says by itself."""
        now = self._world.clock(server)
        if server.machine is not None:
            return server.machine.tick(now)
        if now - server.asked_at < _RETRY_SECONDS or server.place == 0:
            return []
        server.asked_at = now
        return [Send(COORDINATOR, Join(PROTOCOL, server.session, server.name, True))]

    def lost(self):
        """What the coordinator does about servers whose connections it has seen break."""
        world, outputs = self._world, []
        for session, address in world.coordinator.servers.items():
            gone_at = world.process(address).gone_at
            if gone_at is not None and world.now - gone_at > _GONE_SECONDS:
                outputs += world.coordinator.lost_server(session, world.clock(world.servers[0]))
        return outputs

    def _follow(self, server, admit):
        server.leader = admit.leader or self._world.servers[0].name
        server.machine = Follower(
            admit.run,
            admit.shard,
            server.identity,
            admit.leader,
            admit.incarnation,
            admit.stop - admit.start,
            lambda state: self._world.make_shard(admit.shard, state, server.identity),
            lambda: f"time-{next(self._drawn)}".encode().ljust(16),
        )
        self._world.note(server.name, f"follows shard {admit.shard} at {server.leader}")
        return self.tick(server)

    def _lead(self, server, shard):
        """What stands at the door comes in now, as soon as it gets to it."""
        world = self._world
        world.note(server.name, f"leads shard {shard.number} from version {shard.version} on")
        server.machine = shard
        world.lead(shard)
        world.delivery.read_later(server, server.doorstep)
        server.doorstep = []

    def _join_again(self, server, error):
        self._world.note(server.name, f"joins again: {error.code}")
        server.die()
        server.alive = True


def _sends_away(machine, error):
    """Whether the coordinator says by it that this server is not what it thinks."""
    return machine is not None and error.code in ("deposed", "bad-shard", "wrong-run")
