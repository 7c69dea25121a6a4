"""Which microbatches of the open steps are in the weights, where a push is applied when it arrives (ssp, asp)."""

from ps_vae.ps.blocks import Block
from ps_vae.ps.reduction import Metrics, add_metrics

__all__ = ["Arrivals"]


class Arrivals:
    """One step, block by block.

    Invariant: a microbatch is marked in `_counted` once it is in the weights; it is applied once.

    staleness  versions between the weights and the oldest gradient that was applied to them
    """

    def __init__(self, microbatches: int) -> None:
        self.metrics: Metrics = ()
        self.staleness = 0
        self._counted = bytearray(microbatches)
        self._missing = microbatches

    @property
    def is_complete(self) -> bool:
        return self._missing == 0

    def accepts(self, block: Block) -> bool:
        """Whether nothing of `block` is in the weights. Of one that is partly there the rest comes by name."""
        return not any(self._counted[block.start : block.stop])

    def add(self, block: Block, metrics: Metrics, staleness: int) -> None:
        """Count a block that was accepted."""
        self._counted[block.start : block.stop] = b"\1" * len(block)
        self._missing -= len(block)
        self.metrics = add_metrics(self.metrics, metrics) if self.metrics else metrics
        self.staleness = max(self.staleness, staleness)
