"""The gradient of a block of microbatches: the model's mathematics on the run's examples, summed in tree order."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ps_vae.data import Split
from ps_vae.errors import NumericalError
from ps_vae.jit import kernel
from ps_vae.ps.actions import Result
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.reduction import Metrics, add_metrics
from ps_vae.train.config import RunConfig
from ps_vae.train.examples import Batches
from ps_vae.vae.elbo import elbo_gradient
from ps_vae.vae.layout import ParameterLayout
from ps_vae.vae.network import Workspace

__all__ = ["METRICS", "BlockGradient", "is_finite"]

Vector = npt.NDArray[np.float32]

METRICS = ("log_likelihood", "kl")
"""What is summed over the examples of a step beside the gradient, in nats; in this order on the wire."""


class BlockGradient:
    """gradient(weights, step, block): a pure function of its arguments and the run's seed.

    weights  the vector that it reads; (layout.size,)
    buffers  gradients are written into arrays taken from here; whoever gets a result gives its array back
    """

    def __init__(self, config: RunConfig, split: Split) -> None:
        self.layout = ParameterLayout(config.model)
        self.weights = self.layout.zeros()
        self.buffers = Buffers(self.layout.size, self.layout.zeros)
        self._config = config
        self._batches = Batches(config, split)
        self._workspace = Workspace(config.model, config.microbatch)
        self._parameters = self.layout.bind(self.weights)

    def __call__(self, step: int, blocks: Sequence[Block]) -> list[Result]:
        """Raises NumericalError, naming the tensor, where a gradient is not finite; no array is kept back then."""
        results: list[Result] = []
        # What is not finite is an error below; NumPy's warnings would only repeat it in the log.
        with np.errstate(invalid="ignore", over="ignore"):
            for block in blocks:
                gradient, metrics = self._sum(step, block.start, block.stop)
                results.append(Result(block, gradient, metrics))
                if not (is_finite(gradient) and all(np.isfinite(metrics))):
                    for result in results:
                        self.buffers.give(result.gradient)
                    raise NumericalError(self._complaint(step, gradient))
        return results

    def _sum(self, step: int, start: int, stop: int) -> tuple[Vector, Metrics]:
        """Of the node [start, stop): its children's sums added, depth first, so few vectors are alive."""
        if stop - start == 1:
            return self._microbatch(step, start)
        middle = start + (1 << (stop - start - 1).bit_length() - 1)
        left, left_metrics = self._sum(step, start, middle)
        right, right_metrics = self._sum(step, middle, stop)
        np.add(left, right, out=left)
        self.buffers.give(right)
        return left, add_metrics(left_metrics, right_metrics)

    def _microbatch(self, step: int, index: int) -> tuple[Vector, Metrics]:
        workspace = self._workspace
        self._batches.fill(step, index, workspace.batch, workspace.noise)
        gradient = self.buffers.take()
        sums = elbo_gradient(
            self._parameters,
            workspace.batch,
            workspace.noise,
            beta=self._config.beta_at(step),
            workspace=workspace,
            gradient=self.layout.bind(gradient),
        )
        return gradient, (sums.log_likelihood, sums.kl)

    def _complaint(self, step: int, gradient: Vector) -> str:
        bad = np.flatnonzero(~np.isfinite(gradient))
        where = f"{gradient[bad[0]]} in {self.layout.tensor_at(int(bad[0]))}" if bad.size else "not finite in the ELBO"
        rate = self._config.learning_rate
        return f"step {step}: the gradient is {where}; --resume with a lower --learning-rate than {rate:g}"


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
