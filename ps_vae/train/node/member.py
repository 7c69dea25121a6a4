"""A member of a node: a process that computes the blocks that the node's process gives it, and nothing else.

It knows no server. Its sums are written where the node's process reads them, and are its own again with its next task.
"""

import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.errors import DataError, PeerError, PsVaeError
from ps_vae.jit import announce_compilation, start_numba
from ps_vae.ps.blocks import Block, is_block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.sharing.segment import Segment
from ps_vae.train.arithmetic import fingerprint, use_one_thread
from ps_vae.train.config import RunConfig
from ps_vae.train.node.messages import (
    MOST_BLOCKS,
    TO_MEMBER,
    Done,
    Failed,
    Prepare,
    Prepared,
    Task,
    needs,
    receive,
    send,
)
from ps_vae.train.processes import let_others_first
from ps_vae.train.worker import Program
from ps_vae.vae.layout import ParameterLayout

__all__ = ["compute_for"]

Say = Callable[[str], None]
Vector = npt.NDArray[np.float32]


def compute_for(stream: socket.socket, say: Say) -> int:
    """Compute for the process at the other end of `stream` until it ends. Returns the exit code.

    Raises PeerError where it says what makes no sense.
    """
    use_one_thread()
    let_others_first()
    announce_compilation(say)
    start_numba()
    member: _Member | None = None
    try:
        while True:
            with receive(stream, TO_MEMBER) as (message, descriptor):
                match message:
                    case None:
                        return 0
                    case Prepare():
                        member = _Member(message, needs(descriptor), say)
                        member.answer(stream, message.ticket)
                    case Task() if member is not None:
                        send(stream, member.compute(message))
                    case _:
                        raise PeerError("unknown-message", f"a {message.KIND} before the run is known")
    except PeerError:
        raise
    except PsVaeError as error:
        # The node's process says it, once for all members.
        send(stream, Failed(0, "other", str(error)[:2048]))
        return 1
    except (BrokenPipeError, ConnectionResetError):
        return 0


class _Member:
    """Model and data of a run, and the memory that it shares with the node's process."""

    def __init__(self, prepare: Prepare, descriptor: int, say: Say) -> None:
        config = RunConfig.unpack(prepare.config)
        size = ParameterLayout(config.model).size
        self._microbatches = config.microbatches
        self._weights = Segment.open(descriptor, prepare.slots, size)
        self._sums = Segment.create(MOST_BLOCKS, size)
        self._buffers = Buffers(size, self._sums.arrays())
        self._lent: list[Vector] = []
        self._program = Program(prepare.data, say)
        self._description = self._program.prepare(config, self._buffers)

    def answer(self, stream: socket.socket, ticket: int) -> None:
        """Say that all is there, and hand the sums' memory over."""
        prepared = Prepared(ticket, fingerprint(), self._description[:4096])
        with self._sums.readable() as descriptor:
            send(stream, prepared, descriptor)

    def compute(self, task: Task) -> Any:
        """The answer to a task."""
        blocks = [Block(start, stop) for start, stop in task.blocks]
        if task.slot >= self._weights.slots or not 0 < len(blocks) <= self._sums.slots:
            raise PeerError("malformed", f"a task of {len(blocks)} blocks on the weights in slot {task.slot}")
        if not all(is_block(block, self._microbatches) for block in blocks):
            raise PeerError("bad-block", f"{task.blocks} are not all blocks of {self._microbatches} microbatches")
        for array in self._lent:
            self._buffers.give(array)
        self._lent = []
        started = time.perf_counter_ns()
        try:
            results = self._program.compute(self._weights.array(task.slot), task.step, blocks)
        except ArithmeticError as error:
            return Failed(task.ticket, "numerical", str(error)[:2048])
        except DataError as error:
            return Failed(task.ticket, "data", str(error)[:2048])
        nanoseconds = time.perf_counter_ns() - started
        self._lent = [result.gradient for result in results]
        places = [self._sums.place(array) for array in self._lent]
        slots = tuple(place[0] for place in places if place is not None)
        return Done(task.ticket, nanoseconds, slots, tuple(result.metrics for result in results))
