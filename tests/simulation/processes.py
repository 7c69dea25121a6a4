"""What is around a machine: a process that is alive or not, asleep or not, with a clock and a disk of its own.

A process that is asleep, or a client that computes, reads nothing: what comes waits for it, in order. One that dies
loses what it has not read, and everything else but its disk.
"""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ps_vae.errors import RefusedError
from ps_vae.ps.actions import Stopped
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.encoder import Encoder
from ps_vae.ps.evaluator import Evaluator
from ps_vae.ps.follower import Follower
from ps_vae.ps.identity import ServerIdentity
from ps_vae.ps.messages import Push
from ps_vae.ps.replica import ReplicaReader
from ps_vae.ps.shard import Shard
from ps_vae.ps.worker import Worker

from .ledger import ViolationError


@dataclass(kw_only=True)
class Process:
    """Any process.

    offset  its clock less the world's; it grows where the clock jumps
    life    how often it was started: what an earlier life planned does not happen any more
    disk    what outlives it
    """

    name: str
    alive: bool = True
    asleep_until: float = 0.0
    offset: float = 0.0
    life: int = 0
    disk: dict[str, Any] = field(default_factory=dict)
    inbox: deque[Callable[[], None]] = field(default_factory=deque)

    def is_blocked(self, now: float) -> bool:
        """Whether what comes has to wait."""
        return self.asleep_until > now

    def die(self) -> None:
        self.alive = False
        self.life += 1
        self.inbox.clear()

    def read(self, now: float) -> None:
        """What has waited, until there is nothing more or it is blocked again."""
        while self.inbox and self.alive and not self.is_blocked(now):
            self.inbox.popleft()()


@dataclass(kw_only=True)
class ServerProcess(Process):
    """A server: its machine, and what its program holds.

    place     its number among the servers; the first ones begin as leaders of the shards of these numbers
    machine   a shard that leads, a follower, or nothing while it joins
    leader    address of the leader that it follows
    asked_at  when it said `join` last, by its own clock
    gone_at   when those who watch it saw its connections break; None where they stand
    doorstep  what has come, by sender, for a leader that it is not yet
    """

    place: int
    machine: Shard | Follower | None = None
    leader: str = ""
    asked_at: float = float("-inf")
    gone_at: float | None = None
    doorstep: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def session(self) -> bytes:
        return self.sender.encode().ljust(16)

    @property
    def identity(self) -> ServerIdentity:
        return ServerIdentity(self.session, self.name)

    @property
    def sender(self) -> str:
        """As what other servers know it: one that was started again comes through other connections."""
        return f"{self.name}#{self.life}" if self.life else self.name

    def die(self) -> None:
        super().die()
        self.machine, self.leader, self.asked_at = None, "", float("-inf")
        self.doorstep.clear()


@dataclass(kw_only=True)
class ClientProcess(Process):
    """A worker or an evaluator: its machine, and what its program holds.

    spoils       what a faulty or hostile worker makes of the gradient of a step's microbatch, None where it is honest
    grabs        what a hostile worker makes of a push, in its own name, of a microbatch that others were given; it
                 pushes all of these, before they do, and does not mind to be refused
    is_mute      it never says that it is in trouble
    refused      why it gave up
    connections  to an address: how often it was made anew; a server knows the client by what comes through it
    shards       where it thinks that the shards are
    """

    machine: Worker | Evaluator
    seconds: float
    weights: np.ndarray
    reader: ReplicaReader | None = None
    encoder: Encoder | None = None
    spoils: Callable[[np.ndarray, int, int], np.ndarray] | None = None
    grabs: Callable[[Push], Push] | None = None
    is_mute: bool = False
    refused: RefusedError | None = None
    stopped: Stopped | None = None
    computed: list[tuple[int, Block, tuple]] = field(default_factory=list)
    measured: list[tuple[int, np.ndarray]] = field(default_factory=list)
    connections: dict[str, int] = field(default_factory=dict)
    shards: list[str] = field(default_factory=list)

    @property
    def is_busy(self):
        return self.machine.state in ("computing", "measuring")

    def is_blocked(self, now: float) -> bool:
        return self.asleep_until > now or self.is_busy

    def sender(self, address: str) -> str:
        """As what the server at `address` knows it."""
        times = self.connections.get(address, 0)
        return f"{self.name}#{times}" if times else self.name

    def reconnect(self, address: str) -> None:
        self.connections[address] = self.connections.get(address, 0) + 1


class WatchedBuffers(Buffers):
    """Knows how often an array was taken: between two events it may have been given back and published anew.

    published  the arrays, by their identity, that must not be taken
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.turns: dict[int, int] = {}
        self.published: Callable[[], Collection[int]] = tuple

    def take(self) -> np.ndarray:
        array = super().take()
        if id(array) in self.published():
            raise ViolationError("an array is taken to be written to that is published")
        self.turns[id(array)] = self.turns.get(id(array), 0) + 1
        return array
