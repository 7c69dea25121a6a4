"""What has come of the steps that are not whole: pushes are checked, decoded and counted here, each microbatch once.

Under bsp they wait, in their place in the step's tree or, where microbatches are kept apart, in their row; under ssp
and asp they are applied at once, and only remembered.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.aggregation.separate import SeparateStep
from ps_vae.ps.arrivals import Arrivals
from ps_vae.ps.blocks import Block, is_block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import BlockCodec
from ps_vae.ps.decoder import Decoder
from ps_vae.ps.messages import Push
from ps_vae.ps.reduction import StepSum
from ps_vae.ps.rules import ASYNCHRONOUS_WINDOW, RunRules

__all__ = ["OpenSteps"]

Array = npt.NDArray[np.float32]


class OpenSteps:
    """The open steps of one shard.

    Invariants: `sums` has what has come of steps that are not applied, each microbatch once; `arrivals` which
                microbatches of those that are not whole are in the weights.

    duplicates  pushes of which nothing was new
    """

    def __init__(
        self,
        number: int,
        rules: RunRules,
        size: int,
        is_finite: Callable[[Array], bool],
        codec: BlockCodec | None,
        name_of: Callable[[int], str],
    ) -> None:
        self.duplicates = 0
        self.sums: dict[int, StepSum | SeparateStep] = {}
        self.arrivals: dict[int, Arrivals] = {}
        self.partial_sums = Buffers(size)
        self._rules = rules
        self._tables = Buffers(rules.microbatches * size)
        self._decoder = Decoder(codec, self.partial_sums, is_finite, name_of, shard=number)

    def check(self, push: Push, version: int) -> Block:
        """Its block. PeerError where no such push can be counted by who holds `version`."""
        rules = self._rules
        block = Block(push.start, push.stop)
        if not is_block(block, rules.microbatches):
            text = f"[{push.start}, {push.stop}) is no block of {rules.microbatches} microbatches"
            raise PeerError("bad-block", text)
        if rules.aggregation is not None and len(block) > 1:
            text = f"[{push.start}, {push.stop}) is a sum; this run takes each microbatch by itself"
            raise PeerError("bad-block", text)
        bound, delay = rules.consistency.bound, rules.consistency.delay
        last = min(rules.steps, version + (ASYNCHRONOUS_WINDOW if bound is None else 1 + bound + delay))
        if push.step >= last:
            raise PeerError("bad-step", f"step {push.step} is not open; steps below {last} are")
        usable = rules.consistency.usable(push.step)
        if push.version not in usable or push.version > version:
            raise PeerError("stale", f"step {push.step} was computed on version {push.version}, allowed are {usable}")
        self._decoder.check_size(push)
        return block

    def gradient(self, push: Push) -> Array:
        """Of a push that was checked. PeerError where it holds none."""
        if len(push.metrics) != self._rules.metrics:
            text = f"a push with {len(push.metrics)} metrics, this run has {self._rules.metrics}"
            raise PeerError("bad-size", text)
        if not all(map(math.isfinite, push.metrics)):
            raise PeerError("not-finite", f"step {push.step}: the metrics of a push are {push.metrics}")
        return self._decoder.gradient(push)

    def add(self, push: Push, block: Block, gradient: Array) -> None:
        """Under bsp: keep it until the step is whole. What was counted before is dropped."""
        if push.step not in self.sums:
            self.sums[push.step] = self._new_sum()
        if not self.sums[push.step].add(block, gradient, push.metrics, pooled=self._decoder.is_pooled):
            self.duplicates += 1

    def whole(self, step: int) -> StepSum | SeparateStep | None:
        """What has come of a step, if all of it has."""
        total = self.sums.get(step)
        return total if total is not None and total.is_complete else None

    def close(self, step: int) -> None:
        """The step is applied: under bsp its arrays are given back."""
        self.arrivals.pop(step, None)
        if (total := self.sums.pop(step, None)) is not None:
            total.close()

    def arrive(self, push: Push, block: Block, staleness: int) -> Arrivals | None:
        """Under ssp and asp: note that it is applied now, and to which step. None: some of it was counted before."""
        step = self.arrivals.setdefault(push.step, Arrivals(self._rules.microbatches))
        if not step.accepts(block):
            self.duplicates += 1
            return None
        step.add(block, push.metrics, staleness)
        return step

    def done_with(self, gradient: Array) -> None:
        """Nobody reads it any more."""
        self._decoder.done_with(gradient)

    def _new_sum(self) -> StepSum | SeparateStep:
        microbatches, aggregation = self._rules.microbatches, self._rules.aggregation
        if aggregation is None:
            return StepSum(microbatches, self.partial_sums)
        return SeparateStep(aggregation, microbatches, self.partial_sums, self._tables)
