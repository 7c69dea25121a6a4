"""Local steps: a worker takes many small steps by itself and pushes how far it has come.

    x_0 = w                                        the weights of round r
    x_j+1 = inner(x_j, gradient at x_j)            j = 0 ... H - 1, on batch r H + j
    pushed: w - x_H                                in the place of a gradient
    w <- outer(w, mean of what was pushed)         the server: Nesterov's momentum

Douillard et al. 2023 (DiLoCo), algorithm 1. A step of the server is a round. Its leaves, which are microbatches
otherwise, are trajectories: leaf i of round r takes the microbatches (r H, i) ... (r H + H - 1, i), so a round of H
batches sees the rows that H steps would see, each once. What leaves push is summed in the order of the tree. With
H = 1, descent inside, and no momentum and a rate of 1 outside, w - rate * mean gradient is left: data parallelism.

The inner optimizer's state (Adam's moments) stays here: the k-th leaf of a piece of work goes on with the state of the
k-th leaf of the piece before, whichever leaves they were. It is about this worker's way, not about those rows. A worker
that joins, that comes back and one of a resumed run begin with none, as before a first step. In a synchronous run the
same work given out again to the same worker has the same result, and its state moves once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps_vae.data import Split
from ps_vae.optim.table import optimizer
from ps_vae.ps.actions import Result
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.reduction import Metrics, add_metrics, sum_in_order
from ps_vae.train.config import RunConfig
from ps_vae.train.form import FormOf
from ps_vae.train.gradient import BlockGradient, check_finite

__all__ = ["LocalSteps", "contribution"]

Vector = npt.NDArray[np.float32]


def contribution(
    config: RunConfig, split: Split, buffers: Buffers, form: FormOf | None = None
) -> "BlockGradient | LocalSteps":
    """What a worker of the run computes and pushes; results are in arrays of `buffers`, gradients in a form."""
    if not config.local_steps:
        return BlockGradient(config, split, buffers, form)
    return LocalSteps(config, BlockGradient(config, split), buffers)


@dataclass(slots=True)
class _Inner:
    """The state that one trajectory hands to the next.

    updates  that are in it
    """

    optimizer: dict[str, Vector]
    updates: int = 0


class LocalSteps:
    """change(weights, step, blocks), in the place of BlockGradient: how far the leaves' trajectories lead, summed.

    gradient  of one microbatch; its arrays are taken from and given back to `gradient.buffers`
    buffers   results are written into arrays taken from here; whoever gets a result gives its array back
    """

    def __init__(self, config: RunConfig, gradient: BlockGradient, buffers: Buffers) -> None:
        self.layout = gradient.layout
        self.buffers = buffers
        self._config = config
        self._gradient = gradient
        self._rule = optimizer(config.optimizer)
        self._rates = config.rates()
        # Without a state the same work has the same result again.
        self._repeats = parse_consistency(config.consistency).is_synchronous and bool(self._rule.state_names)
        self._inner: list[_Inner] = []
        self._partial_sums = Buffers(self.layout.size)
        self._newest = -1
        self._done: dict[tuple[int, Block], tuple[Vector, Metrics]] = {}

    def __call__(self, weights: Vector, step: int, blocks: Sequence[Block]) -> list[Result]:
        """Raises what BlockGradient does; the inner state is dropped then, and no array is kept back."""
        if step > self._newest:
            self._newest = step
            self._forget_results(step - self._config.delay)
        results: list[Result] = []
        first = 0
        try:
            for block in blocks:
                results.append(self._result(weights, step, block, first))
                first += len(block)
        except ArithmeticError:
            self._inner.clear()
            for result in results:
                self.buffers.give(result.gradient)
            raise
        return results

    def warm_up(self) -> None:
        """Compile, or load, every kernel."""
        self._gradient.warm_up()
        vector, state = np.zeros(16, np.float32), self._rule.initial_state(16)
        self._rule.update(vector, vector.copy(), 1.0, state, 0.0, 0, vector)

    def _result(self, weights: Vector, step: int, block: Block, first: int) -> Result:
        out = self.buffers.take()
        if (known := self._done.get((step, block))) is not None:
            np.copyto(out, known[0])
            return Result(block, out, known[1])

        def leaf(index: int, change: Vector) -> Metrics:
            return self._trajectory(weights, step, index, self._inner_of(first + index - block.start), change)

        try:
            metrics = sum_in_order(block, leaf, out, self._partial_sums)
            check_finite(self._config, self.layout, step, Result(block, out, metrics))
        except ArithmeticError:
            self.buffers.give(out)
            raise
        if self._repeats:
            kept = self._partial_sums.take()
            np.copyto(kept, out)
            self._done[step, block] = (kept, metrics)
        return Result(block, out, metrics)

    def _trajectory(self, weights: Vector, step: int, index: int, inner: _Inner, change: Vector) -> Metrics:
        """Leaf `index`: `change` is overwritten with w - x_H; the metrics of its steps are summed."""
        place = change
        np.copyto(place, weights)
        total: Metrics = ()
        count = self._config.local_steps
        for batch in range(step * count, (step + 1) * count):
            (result,) = self._gradient(place, batch, (Block(index, index + 1),))
            total = add_metrics(total, result.metrics) if total else result.metrics
            rate, scale = self._rates.rate_at(batch), 1.0 / self._config.microbatch
            self._rule.update(place, result.gradient, scale, inner.optimizer, rate, inner.updates, place)
            inner.updates += 1
            self._gradient.buffers.give(result.gradient)
        np.subtract(weights, place, out=change)
        return total

    def _inner_of(self, number: int) -> _Inner:
        while len(self._inner) <= number:
            self._inner.append(_Inner(self._rule.initial_state(self.layout.size)))
        return self._inner[number]

    def _forget_results(self, before: int) -> None:
        for place in [place for place in self._done if place[0] < before]:
            self._partial_sums.give(self._done.pop(place)[0])
