"""Messages from machine to machine: out of what one returns, over the network, into the process of the other."""

from functools import partial

import numpy as np

from ps_vae.errors import PeerError, RefusedError
from ps_vae.ps.follower import Follower
from ps_vae.ps.frames import decode, encode
from ps_vae.ps.messages import TO_CLIENT, TO_SERVER, Applied, Error, Pull, Push, Weights, Work
from ps_vae.ps.outbox import COORDINATOR, RunEnded, Send, ShardAddress, SnapshotTaken, StepApplied
from ps_vae.ps.shard import Shard

from .ledger import ViolationError

# A snapshot is written in so many virtual seconds.
_WRITING_SECONDS = 0.02


class Delivery:
    """The way of every message of a world.

    touched  machines that took a message or returned one since somebody cleared it: `coordinator`, or a server's place
    """

    def __init__(self, world):
        self._world = world
        self.touched = set()
        # As what the coordinator knows who spoke last as the leader of each shard.
        self._leaders = {}
        # Of each `work` in a run with permits: session, ticket, step and block.
        self._given = set()
        # In which life of the coordinator a snapshot was taken.
        self._taken = {}

    def deliver(self, outputs, source):
        """What a server's machine (`coordinator`, or that of a server by its place) returned."""
        world = self._world
        self.touched.add(source)
        for output in outputs:
            match output:
                case Send():
                    self._send(source, output)
                case StepApplied() if source == COORDINATOR:
                    world.reported.append(output)
                case StepApplied():
                    if source == 0:
                        world.applied_here.append(output)
                    world.events.append((world.servers[source].machine.number, output))
                case SnapshotTaken():
                    self._take_snapshot(output)
                case _:
                    world.events.append(output)
                    if isinstance(output, RunEnded):
                        world.note(COORDINATOR, f"ends the run: {output.reason}")
                        world.ended = output

    def send_from(self, client, send):
        """A client's message to a server."""
        if client.is_mute and send.message.KIND == "trouble":
            return
        if send.to == COORDINATOR:
            arrive = partial(self._arrive_at_coordinator, client.sender(COORDINATOR))
            self._transmit(client.name, COORDINATOR, send.message, TO_SERVER, arrive)
            return
        address = client.shards[send.to.shard]
        self._to_server(client.name, address, send.message, client.sender(address), TO_SERVER)

    def to_coordinator(self, sender, message):
        """The coordinator reads a message."""
        world = self._world
        try:
            outputs = world.first.machine.handle(sender, message, world.clock(world.servers[0]))
            if isinstance(message, Applied):
                self._leaders[message.shard] = sender
            self.deliver(outputs, COORDINATOR)
        except PeerError as error:
            self._refuse(COORDINATOR, sender, error)

    def to_shard(self, place, sender, message):
        """A server, by its place, reads a message that is not for the coordinator."""
        world = self._world
        if sender.partition("#")[0] in world.clients and not isinstance(message, Push | Pull):
            raise ViolationError(f"a client sent {message} to a shard")
        server = world.servers[place]
        is_follower = isinstance(server.machine, Follower)
        try:
            outputs = world.server_programs.take(server, sender, message)
            if isinstance(message, Push) and isinstance(server.machine, Shard):
                self._check_was_given(server.machine, message)
            self.deliver(outputs, place)
        except PeerError as error:
            # A follower says nothing of what it cannot use.
            self._refuse(place, COORDINATOR if is_follower else sender, error)

    def _check_was_given(self, shard, push):
        """Where microbatches are kept apart, a push that is not refused is of what its session was given."""
        name = (push.session, push.ticket, push.step, (push.start, push.stop))
        if self._world.rules.secret and name not in self._given:
            text = f"[{push.start}, {push.stop}) of step {push.step} from {push.session}, which was not given it"
            raise ViolationError(f"shard {shard.number} took {text}")

    def forget_leaders(self):
        """The coordinator's process is another one."""
        self._leaders.clear()

    def read_later(self, server, messages):
        """Hand a server what it could not use before."""
        server.inbox.extend(partial(self.to_shard, server.place, *words) for words in messages)
        self._world.at(self._world.now, lambda: server.read(self._world.now))

    def to_client(self, name, link, message):
        """A client reads a message of a shard's server, or of the coordinator (None)."""
        world, client = self._world, self._world.clients[name]
        peer = link if message.KIND in ("weights", "error") else None
        try:
            world.programs.perform(client, client.machine.handle(peer, message, world.clock(client)))
        except RefusedError as error:
            if client.grabs is not None and error.code == "not-yours":
                return
            if client.spoils is None:
                raise
            world.note(name, f"gives up: {error}")
            client.refused = error
            client.die()

    def _send(self, source, send):
        world, to, message = self._world, send.to, send.message
        if source == COORDINATOR:
            origin, sender = COORDINATOR, COORDINATOR
        else:
            origin, sender = world.servers[source].name, world.servers[source].sender
        if to == COORDINATOR:
            # The first server's shard is in the coordinator's process.
            arrive = partial(self._arrive_at_coordinator, sender)
            if source == 0:
                arrive = partial(self._arrive_from_within, world.servers[0].life)
            self._transmit(origin, COORDINATOR, message, TO_SERVER, arrive)
        elif isinstance(to, ShardAddress) and source == COORDINATOR:
            is_here = to.shard == 0 and world.servers[0].machine is not None
            leader = world.servers[0].sender if is_here else self._leaders.get(to.shard)
            if leader is not None:
                self._send(source, Send(leader, message))
        elif isinstance(to, ShardAddress):
            self._to_server(origin, world.servers[source].leader, message, sender, TO_SERVER)
        elif (name := to.partition("#")[0]) not in world.clients:
            self._to_server(origin, name, message, sender, TO_CLIENT, to)
        elif to != world.clients[name].sender(origin):
            world.transcript.sent(world.now, origin, name, message, "a connection that is gone")
        else:
            if isinstance(message, Work) and message.permits:
                session = world.clients[name].machine._session
                self._given |= {(session, message.ticket, message.step, block) for block in message.blocks}
            has_none = source == COORDINATOR or world.servers[source].machine is None
            link = None if has_none else world.servers[source].machine.number
            arrive = partial(self._arrive_at_client, name, link, world.clients[name].life, origin)
            self._transmit(origin, name, message, TO_CLIENT, arrive)

    def _to_server(self, origin, address, message, sender, kinds, connection=None):
        """`connection`: it is read only by the life of the server that was known by that."""
        arrive = partial(self._arrive_at_server, address, connection, sender)
        self._transmit(origin, address, message, kinds, arrive)

    def _transmit(self, source, target, message, kinds, arrive):
        """Through the network: encoded, and perhaps lost, late or twice."""
        world, network, draw, frames = self._world, self._world.network, self._world.random, None
        for _ in range(1 + (draw.random() < network.double)):
            if network.partitions and network.is_cut(source, target, world.now):
                world.transcript.sent(world.now, source, target, message, "a partition")
                continue
            if draw.random() < network.drop:
                world.transcript.sent(world.now, source, target, message, "the network")
                continue
            if frames is None:
                frames = [bytes(frame) for frame in encode(message)] if world.encodes else [_copy(message)]
            time = world.now + draw.uniform(*network.delay)
            if network.heavy and getattr(message, "payload", ()):
                time += network.heavy
            world.transcript.sent(world.now, source, target, message, time)
            world.at(time, partial(self._come, source, target, frames, kinds, arrive))

    def _come(self, source, target, frames, kinds, arrive):
        """A message is there; it is read when its process gets to it."""
        world, process = self._world, self._world.process(target)
        if not process.alive:
            world.note(target, f"is not there for a message of {source}")
            return
        process.inbox.append(partial(self._read, source, target, frames, kinds, arrive))
        process.read(world.now)

    def _read(self, source, target, frames, kinds, arrive):
        message = decode(frames, kinds) if self._world.encodes else frames[0]
        self._world.transcript.read(self._world.now, target, source, message)
        arrive(message)

    def _arrive_at_coordinator(self, sender, message):
        self.to_coordinator(sender, message)

    def _arrive_from_within(self, life, message):
        # What is within a process dies with it.
        if life == self._world.servers[0].life:
            self.to_coordinator(COORDINATOR, message)

    def _arrive_at_server(self, address, connection, sender, message):
        server = self._world.process(address)
        if connection in (None, server.sender):
            self.to_shard(server.place, sender, message)

    def _arrive_at_client(self, name, link, life, origin, message):
        # To the process before, or from a server that it has left: nobody reads it any more.
        client = self._world.clients[name]
        if client.life == life and (link is None or client.shards[link] == origin):
            self.to_client(name, link, message)

    def _refuse(self, source, sender, error):
        self._world.refused.append(error)
        if sender != COORDINATOR:
            self.deliver([Send(sender, Error(error.code, str(error)))], source)

    def _take_snapshot(self, taken):
        world = self._world
        weights = np.concatenate([part.payload[0] for part in taken.parts])
        before = self._taken.get(taken.version)
        if before == world.first.times:
            raise ViolationError(f"snapshot {taken.version} was taken twice")
        if before is not None and weights.tobytes() != world.snapshots[taken.version].tobytes():
            raise ViolationError(f"snapshot {taken.version} was taken again, with other bits")
        self._taken[taken.version] = world.first.times
        world.snapshots[taken.version] = weights
        if world.ledger is not None:
            world.ledger.check_snapshot(taken.version, weights)
        world.note(COORDINATOR, f"has the snapshot of version {taken.version}")
        words = (taken.version, world.servers[0].life)
        world.at(world.now + _WRITING_SECONDS, partial(self._finish_writing, *words))

    def _finish_writing(self, version, life):
        world = self._world
        if world.servers[0].life != life:
            return
        if world.servers[0].is_blocked(world.now):
            world.at(world.servers[0].asleep_until, partial(self._finish_writing, version, life))
            return
        now = world.clock(world.servers[0])
        self.deliver(world.coordinator.finished_writing(version, now), COORDINATOR)


def _copy(message):
    """Published weights may be given back and written to before they arrive; nothing else that is sent changes."""
    if not isinstance(message, Weights):
        return message
    return Weights(message.version, message.encoded, message.base, (message.payload[0].copy(),))
