"""A step whose microbatches are kept apart until all are there: for whatever is not their sum.

It stands in the place of `StepSum`. The first push of a microbatch counts; what comes later is dropped, whoever sends
it. A row a microbatch: the bits do not depend on who pushed what, or when.
"""

import numpy as np
import numpy.typing as npt

from ps_vae.ps.aggregation.middle import middle, middle_of_metrics
from ps_vae.ps.aggregation.table import Aggregation
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.reduction import Metrics

__all__ = ["SeparateStep"]

Array = npt.NDArray[np.float32]


class SeparateStep:
    """What has arrived of one step's slice, microbatch by microbatch.

    buffers  of arrays of the slice's size
    tables   of arrays of as many times that as there are microbatches
    """

    def __init__(self, aggregation: Aggregation, microbatches: int, buffers: Buffers, tables: Buffers) -> None:
        self.microbatches = microbatches
        self._cut = aggregation.cut(microbatches)
        self._buffers, self._tables = buffers, tables
        self._rows = tables.take()
        self._table = self._rows.reshape(microbatches, buffers.size)
        self._metrics: dict[int, Metrics] = {}
        self._out: Array | None = None

    @property
    def is_complete(self) -> bool:
        return self.missing == 0

    @property
    def missing(self) -> int:
        """Microbatches that have not come."""
        return self.microbatches - len(self._metrics)

    def add(self, block: Block, gradient: Array, metrics: Metrics, *, pooled: bool = False) -> bool:
        """Count `block`, of one microbatch; False where it had been counted before.

        pooled  the gradient is in an array of `buffers`, and is ours from now on
        """
        is_new = block.start not in self._metrics
        if is_new:
            np.copyto(self._table[block.start], gradient)
            self._metrics[block.start] = metrics
        if pooled:
            self._buffers.give(gradient)
        return is_new

    def parts(self) -> tuple[tuple[Array, ...], Metrics]:
        """Of a complete step: one array, what it comes to, and the metrics' own middle; valid until `close`.

        To be called once.
        """
        self._out = self._buffers.take()
        middle(self._table, self._cut, self._out)
        return (self._out,), middle_of_metrics([self._metrics[row] for row in range(self.microbatches)], self._cut)

    def close(self) -> None:
        """Give every array back."""
        self._tables.give(self._rows)
        if self._out is not None:
            self._buffers.give(self._out)
