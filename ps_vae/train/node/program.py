"""A node's program: a single worker to the servers, whose computing is done by several processes of this machine.

For each piece of work the weights are copied once to where the members read them. Blocks are divided by the members'
paces; who dies, or stands still while others are done, has its blocks taken by these, in the same step.
"""

import time
from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ps_vae.errors import DataError, NumericalError, PsVaeError, UsageError
from ps_vae.lines import WARNING, Line
from ps_vae.ps.actions import Result
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import BlockCodec, Codec
from ps_vae.ps.codecs.table import FACTORS
from ps_vae.ps.messages import Welcome
from ps_vae.ps.partition import Slice
from ps_vae.ps.sharing.segment import Segment
from ps_vae.train.config import RunConfig
from ps_vae.train.encoding import pull_codecs, push_codecs
from ps_vae.train.gradient import check_finite, is_finite
from ps_vae.train.member import configuration
from ps_vae.train.node.members import Member, Members, Start
from ps_vae.train.node.messages import MOST_BLOCKS, Done, Failed
from ps_vae.train.node.work import NodeWork
from ps_vae.train.warm_up import warm_up_codecs
from ps_vae.vae.layout import ParameterLayout

__all__ = ["LeaveError", "Node", "check_push_codec"]

Say = Callable[[str], None]
Vector = npt.NDArray[np.float32]

_TICK_SECONDS = 0.1
# Of the first who are to be ready, the others are given as much time again and this.
_MORE_SECONDS = 5.0
# A piece of work that takes longer than this is not finished first when the node is told to stop.
_LAST_WORK_SECONDS = 1.0


class Node:
    """What the node does between the messages (a WorkerProgram), and a context manager: its members end with it.

    start       makes a member's process from its end of the stream to it
    arithmetic  fingerprint of ours, and so of theirs
    """

    def __init__(
        self,
        processes: int,
        start: Start,
        arithmetic: str,
        *,
        data: str | None,
        say: Say,
        should_stop: Callable[[], bool],
    ) -> None:
        self.say = say
        self._data = data
        self._should_stop = should_stop
        self._stopping_since: float | None = None
        self._before: dict[int, int] = {}
        self._config: RunConfig | None = None
        self._layout: ParameterLayout | None = None
        self._weights: Segment | None = None
        self._gradients = Buffers(0)
        # More than members: those that stand still keep the weights that they compute on.
        self._versions = processes + 1
        self._members = Members(processes, start, arithmetic, say)

    def __enter__(self) -> "Node":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._members.close()

    def codecs(self, welcome: Welcome) -> tuple[list[BlockCodec], int]:
        config = configuration(welcome)
        check_push_codec(config.push_codec)
        return push_codecs(config, [Slice(start, stop) for _, start, stop in welcome.shards]), config.seed

    def pull_codecs(self, welcome: Welcome) -> list[Codec]:
        slices = [Slice(start, stop) for _, start, stop in welcome.shards]
        return [pull.codec for pull in pull_codecs(configuration(welcome), slices)]

    def join(self, welcome: Welcome, gradients: Buffers) -> None:
        self._config = configuration(welcome)
        self._layout = ParameterLayout(self._config.model)
        self._gradients = gradients
        self._weights = Segment.create(self._versions, gradients.size)
        self._members.prepare(welcome.config, self._data, self._weights)
        # Loaded, or compiled, before the first lease runs.
        is_finite(np.zeros(1, np.float32))
        warm_up_codecs(self._config)
        self._wait_for_members()
        run, data = welcome.run.hex()[:8], self._members.description
        self.say(Line("joined", "joined run {run}: {data}", run=run, data=data))

    def compute(self, weights: Vector, step: int, blocks: Sequence[Block]) -> list[Result]:
        """Raises NumericalError or DataError as a single worker would, PsVaeError where a member has ended itself."""
        if self._config is None:
            raise RuntimeError("there is no run yet")
        slot = self._publish(weights)
        node_work = NodeWork(blocks, self._config.microbatches)
        while not node_work.is_complete:
            self._hand_out(node_work, step, slot)
            for member, answer in self._members.wait(_TICK_SECONDS):
                self._take(node_work, member, answer)
            self._take_back_what_is_late(node_work, step)
            self._leave_if_told_to()
        results = node_work.results(self._gradients)
        self._check(node_work, step, results)
        return results

    def _publish(self, weights: Vector) -> int:
        """Copy the weights to a slot that no member reads."""
        if self._weights is None:
            raise RuntimeError("there is no run yet")
        taken = {member.slot for member in self._members.having("busy")}
        slot = next(number for number in range(self._versions) if number not in taken)
        np.copyto(self._weights.array(slot), weights)
        return slot

    def _hand_out(self, node_work: NodeWork, step: int, slot: int) -> None:
        idle = self._members.having("idle")
        if not node_work.left or not idle:
            return
        known = [member.pace.seconds for member in idle if member.pace.seconds is not None]
        usual = sum(known) / len(known) if known else 1.0
        paces = {member.number: member.pace.seconds or usual for member in idle}
        is_whole = node_work.is_untouched
        given = node_work.hand_out(paces, MOST_BLOCKS, self._before)
        if is_whole:
            self._before = {number: sum(map(len, blocks)) for number, blocks in given.items()}
        now = time.monotonic()
        for member in idle:
            if member.number in given:
                self._members.assign(member, step, slot, given[member.number], now)
            elif is_whole:
                member.pace.had_no_share(min(paces.values()))

    def _take(self, node_work: NodeWork, member: Member, answer: Done | Failed | None) -> None:
        if member.number not in node_work.out:
            # It was given up, or is of a piece of work that failed.
            return
        match answer:
            case None:
                node_work.take_back(member.number)
            case Failed():
                raise {"numerical": NumericalError, "data": DataError}.get(answer.kind, PsVaeError)(answer.text)
            case Done():
                microbatches = sum(map(len, node_work.out[member.number]))
                member.pace.measured(answer.nanoseconds / 1e9, microbatches)
                node_work.answered(member.number, self._members.pieces(member, answer))

    def _take_back_what_is_late(self, node_work: NodeWork, step: int) -> None:
        """Where there is somebody to do it."""
        if node_work.left or not node_work.out or not self._members.having("idle"):
            return
        now = time.monotonic()
        for member in self._members.having("busy"):
            blocks = node_work.out.get(member.number)
            if blocks is not None and now - member.began > member.pace.patience(sum(map(len, blocks))):
                node_work.take_back(member.number)
                seconds = now - member.began
                text = "a process of this node is silent for {seconds:.1f} s; others do its part of step {step}"
                self.say(Line("process-silent", text, level=WARNING, seconds=seconds, step=step))

    def _check(self, node_work: NodeWork, step: int, results: list[Result]) -> None:
        """Members check their sums; of finite ones the sum may still be infinite."""
        if self._config is None or self._layout is None:
            raise RuntimeError("there is no run yet")
        for result in results:
            if node_work.is_one_piece(result.block):
                continue
            try:
                check_finite(self._config, self._layout, step, result)
            except NumericalError:
                for kept in results:
                    self._gradients.give(kept.gradient)
                raise

    def _wait_for_members(self) -> None:
        """Until all are ready; once the first is, those that take twice as long come later."""
        began = time.monotonic()
        first: float | None = None
        while True:
            ready, starting = self._members.having("idle"), self._members.having("starting")
            now = time.monotonic()
            if ready and first is None:
                first = now
            if first is not None and (not starting or now - first > first - began + _MORE_SECONDS):
                return
            if self._should_stop():
                raise LeaveError
            self._members.wait(_TICK_SECONDS)

    def _leave_if_told_to(self) -> None:
        """What can be finished at once is, so that the servers hear of it, and of our leaving."""
        if not self._should_stop():
            return
        now = time.monotonic()
        if self._stopping_since is None:
            self._stopping_since = now
        elif now - self._stopping_since > _LAST_WORK_SECONDS:
            raise LeaveError


class LeaveError(Exception):
    """The node was told to stop while it waited for members."""


def check_push_codec(push_codec: str) -> None:
    """Raises UsageError for what cannot be made of a node's sum."""
    if push_codec == FACTORS:
        raise UsageError(
            "the run has --push-codec factors, and what a node with --as-one sums up has no factors any more; leave "
            "--as-one out, or start the run with another --push-codec"
        )
