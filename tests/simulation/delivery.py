"""Messages from machine to machine: out of what one returns, over the network, into the process of the other."""

from functools import partial

import numpy as np

from ps_vae.errors import PeerError, RefusedError
from ps_vae.ps.evaluator import Evaluator
from ps_vae.ps.frames import decode, encode
from ps_vae.ps.messages import TO_CLIENT, TO_SERVER, Error, Pull, Push, Weights
from ps_vae.ps.outbox import COORDINATOR, RunEnded, Send, ShardAddress, SnapshotTaken, StepApplied

from .ledger import ViolationError

# A snapshot is written in so many virtual seconds.
_WRITING_SECONDS = 0.02


class Delivery:
    """The way of every message of a world.

    touched  machines that took a message or returned one since somebody cleared it: `coordinator`, or a shard's number
    """

    def __init__(self, world):
        self._world = world
        self.touched = set()

    def deliver(self, outputs, source):
        """What a server's machine (`coordinator`, or a shard by number) returned."""
        world = self._world
        self.touched.add(source)
        for output in outputs:
            match output:
                case Send():
                    self._send(source, output)
                case StepApplied():
                    world.events.append((source, output))
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
        address = f"shard-{send.to.shard}"
        arrive = partial(self._arrive_at_shard, send.to.shard, client.sender(address))
        self._transmit(client.name, address, send.message, TO_SERVER, arrive)

    def to_coordinator(self, sender, message):
        """The coordinator reads a message."""
        world = self._world
        try:
            now = world.clock(world.servers[0])
            self.deliver(world.coordinator.handle(sender, message, now), COORDINATOR)
        except PeerError as error:
            self._refuse(COORDINATOR, sender, error)

    def to_shard(self, number, sender, message):
        """A shard reads a message."""
        if message.KIND == "stop":
            return
        world = self._world
        if not isinstance(message, Push | Pull) and sender != COORDINATOR:
            raise ViolationError(f"a client sent {message} to a shard")
        try:
            now = world.clock(world.servers[number])
            self.deliver(world.shards[number].handle(sender, message, now), number)
        except PeerError as error:
            self._refuse(number, sender, error)

    def to_client(self, name, link, message):
        """A client reads a message of a shard's server, or of the coordinator (None)."""
        world, client = self._world, self._world.clients[name]
        if isinstance(client.machine, Evaluator):
            peer = link or 0
        else:
            peer = link if message.KIND in ("weights", "error") else None
        try:
            world.programs.perform(client, client.machine.handle(peer, message, world.clock(client)))
        except RefusedError as error:
            if client.spoils is None:
                raise
            world.note(name, f"gives up: {error}")
            client.refused = error
            client.die()

    def _send(self, source, send):
        world, origin = self._world, source if source == COORDINATOR else f"shard-{source}"
        if send.to == COORDINATOR:
            arrive = partial(self._arrive_at_coordinator, COORDINATOR)
            self._transmit(origin, COORDINATOR, send.message, TO_SERVER, arrive)
        elif isinstance(send.to, ShardAddress):
            arrive = partial(self._arrive_at_shard, send.to.shard, COORDINATOR)
            self._transmit(origin, f"shard-{send.to.shard}", send.message, TO_CLIENT, arrive)
        else:
            name = send.to.partition("#")[0]
            if send.to != world.clients[name].sender(origin):
                world.transcript.sent(world.now, origin, name, send.message, "a connection that is gone")
                return
            link = None if source == COORDINATOR else source
            arrive = partial(self._arrive_at_client, name, link, world.clients[name].life)
            self._transmit(origin, name, send.message, TO_CLIENT, arrive)

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

    def _arrive_at_shard(self, number, sender, message):
        self.to_shard(number, sender, message)

    def _arrive_at_client(self, name, link, life, message):
        # Through a connection of the process before: nobody reads it any more.
        if self._world.clients[name].life == life:
            self.to_client(name, link, message)

    def _refuse(self, source, sender, error):
        self._world.refused.append(error)
        if sender != COORDINATOR:
            self.deliver([Send(sender, Error(error.code, str(error)))], source)

    def _take_snapshot(self, taken):
        world = self._world
        if taken.version in world.snapshots:
            raise ViolationError(f"snapshot {taken.version} was taken twice")
        weights = np.concatenate([part.payload[0] for part in taken.parts])
        world.snapshots[taken.version] = weights
        if world.ledger is not None:
            world.ledger.check_snapshot(taken.version, weights)
        world.note(COORDINATOR, f"has the snapshot of version {taken.version}")
        world.at(world.now + _WRITING_SECONDS, partial(self._finish_writing, taken.version))

    def _finish_writing(self, version):
        world = self._world
        if world.servers[0].is_blocked(world.now):
            world.at(world.servers[0].asleep_until, partial(self._finish_writing, version))
            return
        now = world.clock(world.servers[0])
        self.deliver(world.coordinator.finished_writing(version, now), COORDINATOR)


def _copy(message):
    """Published weights may be given back and written to before they arrive; nothing else that is sent changes."""
    if not isinstance(message, Weights):
        return message
    return Weights(message.version, message.encoded, message.base, (message.payload[0].copy(),))
