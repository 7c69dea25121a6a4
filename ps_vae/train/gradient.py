"""The gradient of a block of microbatches: the model's mathematics on the run's examples, summed in tree order."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ps_vae.data import Split
from ps_vae.errors import NumericalError
from ps_vae.jit import kernel
from ps_vae.ps.actions import Result
from ps_vae.ps.blocks import Block, halves
from ps_vae.ps.buffers import Buffers, address
from ps_vae.ps.reduction import Metrics, add_metrics
from ps_vae.train.config import RunConfig
from ps_vae.train.examples import Batches
from ps_vae.vae.elbo import elbo_gradient
from ps_vae.vae.layout import ParameterLayout, Parameters
from ps_vae.vae.network import Workspace

__all__ = ["METRICS", "BlockGradient", "check_finite", "is_finite"]

Vector = npt.NDArray[np.float32]

_BOUND = 32

METRICS = ("log_likelihood", "kl")
"""What is summed over the examples of a step beside the gradient, in nats; in this order on the wire."""


class BlockGradient:
    """gradient(weights, step, block): a pure function of its arguments and the run's seed.

    buffers  gradients are written into arrays taken from here; whoever gets a result gives its array back
    """

    def __init__(self, config: RunConfig, split: Split, buffers: Buffers | None = None) -> None:
        self.layout = ParameterLayout(config.model)
        self.buffers = buffers if buffers is not None else Buffers(self.layout.size)
        self._partial_sums = Buffers(self.layout.size)
        self._config = config
        self._batches = Batches(config, split)
        self._workspace = Workspace(config.model, config.microbatch)
        self._bound: dict[int, Parameters] = {}

    def __call__(self, weights: Vector, step: int, blocks: Sequence[Block]) -> list[Result]:
        """Raises NumericalError, naming the tensor, where a gradient is not finite; no array is kept back then.

        weights  (layout.size,), only read
        """
        # Not kept: weights in shared memory are given back when nobody holds them any more.
        parameters = self.layout.bind(weights)
        results: list[Result] = []
        # What is not finite is an error below; NumPy's warnings would only repeat it in the log.
        with np.errstate(invalid="ignore", over="ignore"):
            for block in blocks:
                gradient, metrics = self._sum(parameters, step, block, self.buffers)
                results.append(Result(block, gradient, metrics))
                try:
                    check_finite(self._config, self.layout, step, results[-1])
                except NumericalError:
                    for result in results:
                        self.buffers.give(result.gradient)
                    raise
        return results

    def warm_up(self) -> None:
        """Compile, or load, every kernel."""
        for result in self(self.layout.zeros(), 0, (Block(0, 1),)):
            self.buffers.give(result.gradient)

    def _sum(self, parameters: Parameters, step: int, block: Block, pool: Buffers) -> tuple[Vector, Metrics]:
        """Its halves' sums added, depth first, so few vectors are alive."""
        if len(block) == 1:
            return self._microbatch(parameters, step, block.start, pool.take())
        first, second = halves(block)
        left, left_metrics = self._sum(parameters, step, first, pool)
        right, right_metrics = self._sum(parameters, step, second, self._partial_sums)
        np.add(left, right, out=left)
        self._partial_sums.give(right)
        return left, add_metrics(left_metrics, right_metrics)

    def _microbatch(self, parameters: Parameters, step: int, index: int, gradient: Vector) -> tuple[Vector, Metrics]:
        workspace = self._workspace
        self._batches.fill(step, index, workspace.batch, workspace.noise)
        sums = elbo_gradient(
            parameters,
            workspace.batch,
            workspace.noise,
            beta=self._config.beta_at(step),
            workspace=workspace,
            gradient=self._bind(gradient),
        )
        return gradient, (sums.log_likelihood, sums.kl)

    def _bind(self, vector: Vector) -> Parameters:
        """The few vectors that gradients rotate through are bound once."""
        place = address(vector)
        known = self._bound.get(place)
        if known is None or known.vector is not vector:
            if len(self._bound) >= _BOUND:
                self._bound.clear()
            known = self._bound[place] = self.layout.bind(vector)
        return known


def check_finite(config: RunConfig, layout: ParameterLayout, step: int, result: Result) -> None:
    """NumericalError, naming the tensor, unless gradient and metrics are finite."""
    gradient = result.gradient
    if is_finite(gradient) and all(map(math.isfinite, result.metrics)):
        return
    bad = np.flatnonzero(~np.isfinite(gradient))
    where = f"{gradient[bad[0]]} in {layout.tensor_at(int(bad[0]))}" if bad.size else "not finite in the ELBO"
    rate = config.learning_rate
    raise NumericalError(f"step {step}: the gradient is {where}; --resume with a lower --learning-rate than {rate:g}")


def is_finite(vector: Vector) -> bool:
    """Whether no element is NaN or infinite; one pass, nothing allocated."""
    return bool(_times_zero(vector) == 0.0)


@kernel
def _times_zero(vector):  # type: ignore[no-untyped-def]
    # Infinity times zero is NaN, and NaN stays: the sum is 0 exactly where all elements are finite.
    total = np.float32(0.0)
    for i in range(vector.size):
        total += vector[i] * np.float32(0.0)
    return total
