"""The members of a node as its own process sees them: it starts them, gives them tasks, and hears what they answer.

state      meaning                                          left by
starting   it prepares model and data                       prepared -> idle
idle       it has no task                                   a task -> busy
busy       it computes; perhaps what was given to others    done, failed -> idle
gone       its process has ended                            another is started -> starting

A member that was killed is started again after a pause (train.supervisor); one that says what makes no sense is killed.
One that ends by itself ends the node: it has said why.
"""

import contextlib
import select
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError, PsVaeError
from ps_vae.lines import WARNING, Line
from ps_vae.ps.blocks import Block
from ps_vae.ps.sharing.segment import Segment
from ps_vae.train.gradient import METRICS
from ps_vae.train.node.messages import (
    MOST_BLOCKS,
    TO_NODE,
    Done,
    Failed,
    Prepare,
    Prepared,
    Task,
    needs,
    receive,
    send,
)
from ps_vae.train.node.pace import Pace
from ps_vae.train.node.summation import Piece
from ps_vae.train.processes import stop_all
from ps_vae.train.supervisor import Slot, cores_for

__all__ = ["Member", "Members", "Start"]

Vector = npt.NDArray[np.float32]
Say = Callable[[str], None]
Start = Callable[[socket.socket], subprocess.Popen[bytes]]

# Members have nothing to finish; one that stands still is not waited for.
_GRACE_SECONDS = 2.0


@dataclass(slots=True)
class Member:
    """One place in the node, whatever process fills it.

    ticket  of its newest task, or of what it prepares for
    asked   how many blocks that has
    began   when it was given
    slot    of the weights that it is computed on
    sums    the slots of its segment
    """

    number: int
    stream: socket.socket | None = None
    state: str = "gone"
    ticket: int = 0
    asked: int = 0
    began: float = 0.0
    slot: int = 0
    pace: Pace = field(default_factory=Pace)
    sums: list[Vector] = field(default_factory=list)


class Members:
    """`count` processes, each made by `start` with its end of the stream to it.

    fingerprint  of the arithmetic that the servers were told of; a member's has to be the same
    """

    def __init__(self, count: int, start: Start, fingerprint: str, say: Say) -> None:
        self.description = ""
        self._start = start
        self._fingerprint = fingerprint
        self._say = say
        self._tickets = 0
        self._prepare: tuple[bytes, str | None] | None = None
        self._weights: Segment | None = None
        self._poller = select.poll()
        self._of: dict[int, Member] = {}
        self._slots: list[Slot] = []
        self._members = [Member(number) for number in range(count)]
        try:
            for member, core in zip(self._members, cores_for(count), strict=True):
                self._slots.append(Slot(self._starter(member), core))
        except BaseException:
            self.close()
            raise

    def prepare(self, config: bytes, data: str | None, weights: Segment) -> None:
        """Have all of them, and those that come later, prepare for a run whose weights will lie in `weights`."""
        self._prepare = (config, data)
        self._weights = weights
        for member in self._members:
            if member.state != "gone":
                self._send_prepare(member)

    def having(self, *states: str) -> list[Member]:
        """Those in one of the states, in order."""
        return [member for member in self._members if member.state in states]

    def assign(self, member: Member, step: int, slot: int, blocks: Sequence[Block], now: float) -> None:
        """Give an idle member a task on the weights in `slot`."""
        self._tickets += 1
        member.state, member.ticket, member.asked = "busy", self._tickets, len(blocks)
        member.began, member.slot = now, slot
        self._send(member, Task(self._tickets, step, slot, tuple((block.start, block.stop) for block in blocks)))

    def wait(self, seconds: float) -> list[tuple[Member, Done | Failed | None]]:
        """What members answered, at the latest after so long: to their newest task, or None from one that is gone.

        Raises PsVaeError where one has ended by itself.
        """
        news: list[tuple[Member, Done | Failed | None]] = []
        for descriptor, _ in self._poller.poll(round(1000 * seconds)):
            if (member := self._of.get(descriptor)) is not None:
                news += self._hear(member)
        self._watch()
        return news

    def pieces(self, member: Member, done: Done) -> list[Piece]:
        """Sums and metrics of what a member has done, where they lie."""
        arrays = [member.sums[slot] for slot in done.slots]
        return [Piece(array, metrics) for array, metrics in zip(arrays, done.metrics, strict=True)]

    def close(self) -> None:
        """End them all."""
        for member in self._members:
            self._hang_up(member)
        stop_all([slot.child for slot in self._slots], grace=_GRACE_SECONDS)

    def _starter(self, member: Member) -> Callable[[], subprocess.Popen[bytes]]:
        def start() -> subprocess.Popen[bytes]:
            self._hang_up(member)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            with theirs:
                try:
                    child = self._start(theirs)
                except BaseException:
                    ours.close()
                    raise
            member.stream, member.state, member.pace = ours, "starting", Pace()
            self._of[ours.fileno()] = member
            self._poller.register(ours, select.POLLIN)
            if self._prepare is not None:
                self._send_prepare(member)
            return child

        return start

    def _send_prepare(self, member: Member) -> None:
        if self._prepare is None or self._weights is None:
            raise RuntimeError("there is no run yet")
        self._tickets += 1
        member.state, member.ticket, member.sums = "starting", self._tickets, []
        with self._weights.readable() as descriptor:
            self._send(member, Prepare(member.ticket, *self._prepare, self._weights.slots), descriptor)

    def _send(self, member: Member, message: Any, descriptor: int | None = None) -> None:
        if member.stream is not None:
            # One that has ended, or reads nothing, is noticed by what it does not answer.
            with contextlib.suppress(OSError):
                send(member.stream, message, descriptor)

    def _hear(self, member: Member) -> list[tuple[Member, Done | Failed | None]]:
        if member.stream is None:
            return []
        try:
            with receive(member.stream, TO_NODE) as (message, descriptor):
                if message is None:
                    self._hang_up(member)
                    return [(member, None)]
                return self._take(member, message, descriptor)
        except PeerError as error:
            child = self._slots[member.number].child
            text = "process {pid} of this node says what makes no sense, and is ended: {why}"
            self._say(Line("process-ended", text, level=WARNING, pid=child.pid, why=str(error)))
            child.kill()
            self._hang_up(member)
            return [(member, None)]

    def _take(self, member: Member, message: Any, descriptor: int | None) -> list[tuple[Member, Done | Failed | None]]:
        match message:
            case Failed(ticket=0):
                raise PsVaeError(message.text)
            case _ if member.state == "starting" and message.ticket < member.ticket:
                # Of the run before.
                pass
            case Prepared() if member.state == "starting" and message.ticket == member.ticket:
                self._admit(member, message, needs(descriptor))
            case Done() | Failed() if member.state == "busy" and message.ticket == member.ticket:
                if isinstance(message, Done):
                    _check(message, member)
                member.state = "idle"
                return [(member, message)]
            case _:
                raise PeerError("unknown-message", f"a {message.KIND} of a member that is {member.state}")
        return []

    def _admit(self, member: Member, prepared: Prepared, descriptor: int) -> None:
        if prepared.fingerprint != self._fingerprint:
            raise PsVaeError(
                f"this node's processes compute other bits than it told the servers, {prepared.fingerprint} instead of "
                f"{self._fingerprint}; was ps_vae changed meanwhile? Start the worker again"
            )
        if self._weights is None:
            raise RuntimeError("there is no run yet")
        segment = Segment.open(descriptor, MOST_BLOCKS, self._weights.size)
        member.sums = [segment.array(slot) for slot in range(segment.slots)]
        member.state, self.description = "idle", prepared.description

    def _watch(self) -> None:
        for member, slot in zip(self._members, self._slots, strict=True):
            slot.watch(self._say)
            if slot.code is not None:
                # Its last words are better than ours.
                while member.stream is not None:
                    self._hear(member)
                raise PsVaeError(
                    f"process {slot.child.pid}, which computed for this node, has ended by itself with exit code "
                    f"{slot.code}; what it said before is why"
                )

    def _hang_up(self, member: Member) -> None:
        member.state = "gone"
        if member.stream is not None:
            self._poller.unregister(member.stream)
            del self._of[member.stream.fileno()]
            member.stream.close()
            member.stream = None


def _check(done: Done, member: Member) -> None:
    """PeerError unless there is a sum for each block of the member's task."""
    slots, metrics = done.slots, done.metrics
    if len(slots) != member.asked or len(metrics) != member.asked or len(set(slots)) != len(slots):
        raise PeerError("malformed", f"{len(slots)} sums and {len(metrics)} metrics for {member.asked} blocks")
    if max(slots) >= len(member.sums):
        raise PeerError("malformed", f"a sum in slot {max(slots)} of {len(member.sums)}")
    if any(len(values) != len(METRICS) for values in metrics):
        raise PeerError("malformed", f"metrics other than {', '.join(METRICS)}")
