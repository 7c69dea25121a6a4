"""Blocks: the aligned runs of microbatches that work is handed out and summed in.

The microbatches 0 … count-1 of a step are the leaves of a binary tree: the node of level k at position i spans
the leaves [i 2^k, (i+1) 2^k), cut at `count`. A block is such a span. Two blocks of a step are therefore either
disjoint or nested, and a step has one tree, whoever computes what: the order of summation follows from it.
"""

from ps_vae.ps.record import record

__all__ = ["Block", "cover", "halves", "is_block", "parent", "root", "sibling"]


@record
class Block:
    """The microbatches start, …, stop-1 of a step."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __contains__(self, other: "Block") -> bool:
        return self.start <= other.start and other.stop <= self.stop


def root(count: int) -> Block:
    """The whole step."""
    return Block(0, count)


def is_block(block: Block, count: int) -> bool:
    """Whether [start, stop) is a node of the tree over `count` leaves."""
    if not 0 <= block.start < block.stop <= count:
        return False
    return block.stop == min(block.start + _span(block), count) and block.start % _span(block) == 0


def parent(block: Block, count: int) -> Block:
    """The smallest node that is larger than `block`, which must not be the root."""
    span = _span(block)
    while True:
        span *= 2
        start = block.start - block.start % span
        above = Block(start, min(start + span, count))
        if above != block:
            return above


def sibling(block: Block, count: int) -> Block:
    """What `block` lacks of its parent."""
    above = parent(block, count)
    return Block(block.stop, above.stop) if block.start == above.start else Block(above.start, block.start)


def halves(block: Block) -> tuple[Block, Block]:
    """The two nodes that `block`, which must have more than one microbatch, is the sum of."""
    middle = block.start + _span(block) // 2
    return Block(block.start, middle), Block(middle, block.stop)


def cover(start: int, stop: int, count: int) -> list[Block]:
    """The fewest blocks that make up [start, stop), in order."""
    blocks = []
    while start < stop:
        span = start & -start if start else 1 << (count - 1).bit_length()
        while min(start + span, count) > stop:
            span //= 2
        blocks.append(Block(start, min(start + span, count)))
        start = blocks[-1].stop
    return blocks


def _span(block: Block) -> int:
    """The smallest power of two that holds the block's leaves."""
    return 1 << (block.stop - block.start - 1).bit_length()
