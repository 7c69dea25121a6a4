"""The gradient of a block of microbatches: the model's mathematics on the run's examples, summed in tree order."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps_vae.data import Split
from ps_vae.errors import NumericalError
from ps_vae.jit import kernel
from ps_vae.nn.dense import weight_gradient
from ps_vae.ps.actions import Result
from ps_vae.ps.blocks import Block, halves
from ps_vae.ps.buffers import Buffers, address
from ps_vae.ps.reduction import Metrics, add_metrics
from ps_vae.train.clipping import clip
from ps_vae.train.config import RunConfig
from ps_vae.train.examples import Batches
from ps_vae.train.form import FormOf, GradientForm, whole_form
from ps_vae.vae.layout import ParameterLayout, Parameters
from ps_vae.vae.network import Workspace, factors_of_layers
from ps_vae.vae.objective import objective_gradient

__all__ = ["METRICS", "BlockGradient", "check_finite", "is_finite"]

Vector = npt.NDArray[np.float32]

_BOUND = 32

METRICS = ("log_likelihood", "kl")
"""What is summed over the examples of a step beside the gradient, in nats; in this order on the wire."""


class BlockGradient:
    """gradient(weights, step, block): a pure function of its arguments and the run's seed.

    buffers  gradients are written into arrays taken from here; whoever gets a result gives its array back
    form     what is written into them, if not the gradient itself
    """

    def __init__(
        self, config: RunConfig, split: Split, buffers: Buffers | None = None, form: FormOf | None = None
    ) -> None:
        self.layout = ParameterLayout(config.model)
        self.buffers = buffers if buffers is not None else Buffers(self.layout.size)
        self._form = form if form is not None else whole_form(self.layout)
        self._partial_sums = Buffers(self.layout.size)
        self._config = config
        self._batches = Batches(config, split)
        samples = config.objective_at(0).bound.samples
        self._workspace = Workspace(config.model, config.microbatch, samples=samples, trains=True)
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
                piece = _Piece(parameters, step, block.start, self._form(len(block)), self.buffers.take())
                metrics = self._sum(piece, block.start, block.stop, piece.out)
                results.append(Result(block, piece.out, metrics))
                try:
                    check_finite(self._config, self.layout, step, results[-1], piece.form.written)
                except NumericalError:
                    for result in results:
                        self.buffers.give(result.gradient)
                    raise
        return results

    def warm_up(self) -> None:
        """Compile, or load, every kernel."""
        # The numbers do not matter: weights that are all zero make none of data that are far from zero.
        with suppress(NumericalError):
            for result in self(self.layout.zeros(), 0, (Block(0, 1),)):
                self.buffers.give(result.gradient)

    def _sum(self, piece: "_Piece", start: int, stop: int, into: Vector) -> Metrics:
        """Of the node [start, stop): its children's sums added, depth first, so few vectors are alive."""
        if stop - start == 1:
            return self._microbatch(piece, start, into)
        first, second = halves(Block(start, stop))
        metrics = self._sum(piece, first.start, first.stop, into)
        right = self._partial_sums.take()
        right_metrics = self._sum(piece, second.start, second.stop, right)
        if not piece.form.factors:
            np.add(into, right, out=into)
        else:
            for part in piece.form.sums:
                np.add(into[part], right[part], out=into[part])
        self._partial_sums.give(right)
        return add_metrics(metrics, right_metrics)

    def _microbatch(self, piece: "_Piece", index: int, gradient: Vector) -> Metrics:
        workspace, form = self._workspace, piece.form
        self._batches.fill(piece.step, index, workspace.batch, workspace.noise)
        sums = objective_gradient(
            piece.parameters,
            workspace.batch,
            workspace.noise,
            objective=self._config.objective_at(piece.step),
            workspace=workspace,
            gradient=self._bind(gradient, stays=gradient is not piece.out or self.buffers.keeps(gradient)),
            without=form.without,
        )
        if self._config.clip_norm:
            clip(gradient, self.layout, self._config.clip_norm * self._config.microbatch)
        if form.factors:
            self._write_factors(piece, index, gradient)
        return sums.log_likelihood, sums.kl

    def _write_factors(self, piece: "_Piece", index: int, gradient: Vector) -> None:
        """What the layers without a product have instead: the factors, and some rows."""
        layers = factors_of_layers(self._workspace)
        for each in piece.form.factors:
            inputs, d_outputs = layers[each.layer]
            a, d = each.factors.pair(piece.out, index - piece.first)
            np.copyto(a, inputs[:, each.first : each.first + a.shape[1]])
            np.copyto(d, d_outputs)
        for rows in piece.form.rows:
            inputs, d_outputs = layers[rows.layer]
            count = rows.stop - rows.first
            place = gradient[rows.start : rows.start + count * rows.columns].reshape(count, rows.columns)
            weight_gradient(inputs[:, rows.first : rows.stop], d_outputs, place)

    def _bind(self, vector: Vector, *, stays: bool) -> Parameters:
        """The few vectors that gradients rotate through are bound once; others are not kept from ending."""
        place = address(vector)
        known = self._bound.get(place)
        if known is None or known.vector is not vector:
            if len(self._bound) >= _BOUND:
                self._bound.clear()
            known = self.layout.bind(vector)
            if stays:
                self._bound[place] = known
        return known


@dataclass(slots=True)
class _Piece:
    """A block that is being computed.

    first  its first microbatch
    out    its result
    """

    parameters: Parameters
    step: int
    first: int
    form: GradientForm
    out: Vector


def check_finite(
    config: RunConfig, layout: ParameterLayout, step: int, result: Result, written: Sequence[slice] = (slice(None),)
) -> None:
    """NumericalError, naming the tensor, unless metrics and gradient, of which these parts are written, are finite."""
    gradient = result.gradient
    bad = next((part for part in written if not is_finite(gradient[part])), None)
    if bad is None and all(map(math.isfinite, result.metrics)):
        return
    where = "not finite in the ELBO"
    if bad is not None:
        at = (bad.start or 0) + int(np.argmin(np.isfinite(gradient[bad])))
        where = f"{gradient[at]:.6g} in {layout.tensor_at(at)}"
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
