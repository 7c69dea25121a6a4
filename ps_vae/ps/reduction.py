"""The sum of a step's gradients, in the order of its tree.

Siblings are added when both are there, so the bits of the sum do not depend on who pushed what, in which blocks or
when: floating-point addition commutes, and the tree fixes how it associates. A microbatch is counted once: a block
inside one that is there is dropped, and a block that contains some that are there takes their place, with the same
bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from ps_vae.ps.blocks import Block, halves, parent, root, sibling
from ps_vae.ps.buffers import Buffers

__all__ = ["StepSum", "add_metrics", "sum_in_order"]

Array = npt.NDArray[np.float32]
Metrics = tuple[float, ...]


def add_metrics(left: Metrics, right: Metrics) -> Metrics:
    """Element by element, in float64."""
    return tuple(a + b for a, b in zip(left, right, strict=True))


def sum_in_order(block: Block, leaf: Callable[[int, Array], Metrics], out: Array, buffers: Buffers) -> Metrics:
    """The sum of a block's leaves in the order of its tree, depth first, so that few vectors are alive.

    leaf     leaf(index, out) overwrites `out` with what belongs to one microbatch, and returns its metrics
    out      overwritten with the sum
    buffers  where partial sums are kept meanwhile

    Returns the sum of the metrics. What `leaf` raises is passed on, and no array is kept back.
    """
    if len(block) == 1:
        return leaf(block.start, out)
    first, second = halves(block)
    left = sum_in_order(first, leaf, out, buffers)
    other = buffers.take()
    try:
        right = sum_in_order(second, leaf, other, buffers)
        np.add(out, other, out=out)
    finally:
        buffers.give(other)
    return add_metrics(left, right)


@dataclass(slots=True)
class _Node:
    gradient: Array
    metrics: Metrics
    pooled: bool


class StepSum:
    """What has arrived of one step's slice.

    Invariants: the nodes are disjoint blocks, no two of them siblings;
                a node's gradient is the tree sum of its leaves.

    missing  microbatches that have not come

    The last addition, that of the root's two children, is left to whoever uses the sum, in one pass with that.
    Arrays passed to `add` are read until the next merge and never written to; sums live in arrays from `buffers`.
    """

    def __init__(self, microbatches: int, buffers: Buffers) -> None:
        self.microbatches = microbatches
        self._buffers = buffers
        self._nodes: dict[Block, _Node] = {}
        self._root = root(microbatches)
        self.missing = microbatches

    @property
    def is_complete(self) -> bool:
        return self.missing == 0

    def add(self, block: Block, gradient: Array, metrics: Metrics, *, pooled: bool = False) -> bool:
        """Count `block`; False where all of it had been counted before.

        pooled  the gradient is in an array of our buffers, and is ours from now on
        """
        node = _Node(gradient, metrics, pooled)
        if self._covers(block):
            self._release(node)
            return False
        self.missing -= len(block)
        for inner in self._inside(block):
            self.missing += len(inner)
            self._release(self._nodes.pop(inner))
        while block != self._root and parent(block, self.microbatches) != self._root:
            other = self._nodes.pop(sibling(block, self.microbatches), None)
            if other is None:
                break
            node = self._merge(node, other, node_is_left=block.start < sibling(block, self.microbatches).start)
            block = parent(block, self.microbatches)
        self._nodes[block] = node
        return True

    def parts(self) -> tuple[tuple[Array, ...], Metrics]:
        """Of a complete step: the one or two arrays whose sum, left + right, it is; valid until `close`."""
        nodes = [self._nodes[block] for block in sorted(self._nodes, key=lambda block: block.start)]
        return tuple(node.gradient for node in nodes), reduce(add_metrics, (node.metrics for node in nodes))

    def close(self) -> None:
        """Give every pooled array back."""
        for node in self._nodes.values():
            self._release(node)
        self._nodes.clear()
        self.missing = self.microbatches

    def _inside(self, block: Block) -> list[Block]:
        """The nodes that are parts of a block that is none itself."""
        if len(self._nodes) <= 2 * len(block):
            return [node for node in self._nodes if node in block]
        found: list[Block] = []
        below = [*halves(block)] if len(block) > 1 else []
        while below:
            part = below.pop()
            if part in self._nodes:
                found.append(part)
            elif len(part) > 1:
                below += halves(part)
        return found

    def _covers(self, block: Block) -> bool:
        while block not in self._nodes:
            if block == self._root:
                return self.is_complete
            block = parent(block, self.microbatches)
        return True

    def _merge(self, node: _Node, other: _Node, *, node_is_left: bool) -> _Node:
        left, right = (node, other) if node_is_left else (other, node)
        out = node.gradient if node.pooled else other.gradient if other.pooled else self._buffers.take()
        np.add(left.gradient, right.gradient, out=out)
        if node.pooled and other.pooled:
            self._buffers.give(other.gradient)
        return _Node(out, add_metrics(left.metrics, right.metrics), pooled=True)

    def _release(self, node: _Node) -> None:
        if node.pooled:
            self._buffers.give(node.gradient)
