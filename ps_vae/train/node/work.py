"""The blocks of one piece of work on their way through the members of a node; no processes, no clock.

    pool          nobody has them
    out           a member computes them            given by hand_out, back by take_back
    pieces        their sums are there              answered

Every microbatch is in one of the three, and is summed once: what a member answers after its blocks were taken back is
dropped, with whoever has them now the sums have the same bits.
"""

from collections.abc import Mapping, Sequence

from ps_vae.ps.actions import Result
from ps_vae.ps.blocks import Block, cover
from ps_vae.ps.buffers import Buffers
from ps_vae.train.node.division import shares
from ps_vae.train.node.summation import Piece, tree_sum

__all__ = ["NodeWork"]


class NodeWork:
    """What the node was given.

    Invariants: pool, out and pieces are disjoint and together make up the blocks;
                what is in out or pieces lies inside one of the blocks, and is a node of the step's tree.

    blocks        disjoint nodes of the tree
    microbatches  of a step
    """

    def __init__(self, blocks: Sequence[Block], microbatches: int) -> None:
        self.out: dict[int, tuple[Block, ...]] = {}
        self._blocks = tuple(blocks)
        self._microbatches = microbatches
        self._pool = list(blocks)
        self._pieces: dict[Block, Piece] = {}
        self._lent: dict[int, list[Block]] = {}

    @property
    def left(self) -> int:
        """Microbatches that nobody has."""
        return sum(map(len, self._pool))

    @property
    def is_complete(self) -> bool:
        return not self._pool and not self.out

    @property
    def is_untouched(self) -> bool:
        """Whether nobody has, or had, any of it."""
        return self._pool == list(self._blocks)

    def hand_out(
        self, paces: Mapping[int, float], at_most: int, before: Mapping[int, int]
    ) -> dict[int, tuple[Block, ...]]:
        """What each of these members, who are idle, is to compute now: as few blocks as its share makes.

        paces    seconds a microbatch
        at_most  blocks a member; it may write over what it has answered before
        before   how many microbatches each had last time
        """
        division = shares(self.left, list(paces.values()), [before.get(member, 0) for member in paces])
        given: dict[int, tuple[Block, ...]] = {}
        for member, share in zip(paces, division, strict=True):
            blocks = self._take(share, at_most)
            if blocks:
                self._keep_copies(member)
                self.out[member] = given[member] = blocks
        return given

    def answered(self, member: int, pieces: Sequence[Piece]) -> None:
        """The sums of what `member` has out, in order. They are read until it is given more, or the work is summed."""
        blocks = self.out.pop(member)
        self._pieces.update(zip(blocks, pieces, strict=True))
        self._lent.setdefault(member, []).extend(blocks)

    def take_back(self, member: int) -> None:
        """`member` has died, or takes too long: what it has out goes to others."""
        self._pool = sorted([*self._pool, *self.out.pop(member)], key=lambda block: block.start)

    def results(self, buffers: Buffers) -> list[Result]:
        """Of a complete work: the sum of each block, in arrays from `buffers`."""
        results = []
        for block in self._blocks:
            gradient = buffers.take()
            results.append(Result(block, gradient, tree_sum(block, self._pieces, gradient)))
        return results

    def is_one_piece(self, block: Block) -> bool:
        """Whether a single member computed all of it."""
        return block in self._pieces

    def _take(self, share: int, at_most: int) -> tuple[Block, ...]:
        """The first microbatches of the pool. A run never goes beyond one block: their sums are wanted apart."""
        taken: list[Block] = []
        while share > 0 and self._pool and len(taken) < at_most:
            run = self._pool[0]
            nodes = cover(run.start, min(run.stop, run.start + share), self._microbatches)
            taken += nodes[: at_most - len(taken)]
            share -= taken[-1].stop - run.start
            self._pool[:1] = [Block(taken[-1].stop, run.stop)] if taken[-1].stop < run.stop else []
        return tuple(taken)

    def _keep_copies(self, member: int) -> None:
        for block in self._lent.pop(member, ()):
            piece = self._pieces[block]
            self._pieces[block] = Piece(piece.gradient.copy(), piece.metrics)
