"""Whoever computes what of a node's work, in which order, with whichever losses: the sum has the bits of one alone."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.ps.blocks import Block, cover
from ps_vae.ps.buffers import Buffers
from ps_vae.train.node import summation
from ps_vae.train.node.summation import Piece, tree_sum
from ps_vae.train.node.work import NodeWork

Floats = npt.NDArray[np.float32]
SIZE = 5


def leaves(count: int) -> list[Floats]:
    """Gradients whose sum depends on the order of the additions, in nearly every element."""
    return list(np.random.default_rng(count).normal(size=(count, SIZE)).astype(np.float32) * 10.0)


def plain_sum(gradients: list[Floats], start: int, stop: int, level: int = 20) -> Floats:
    """Of the leaves start to stop, by the definition: node k of a level is the sum of nodes 2k and 2k+1 below."""
    if level == 0:
        return gradients[start].copy()
    middle = min(start + (1 << (level - 1)), stop)
    left = plain_sum(gradients, start, middle, level - 1)
    return left if middle == stop else left + plain_sum(gradients, middle, stop, level - 1)


def level_of(block: Block) -> int:
    level = 0
    while 1 << level < len(block):
        level += 1
    return level


@st.composite
def works(draw: st.DrawFn) -> tuple[int, list[Block]]:
    """Microbatches of a step, and disjoint blocks of it, in any order."""
    count = draw(st.integers(1, 40))
    cuts = sorted(draw(st.sets(st.integers(0, count), min_size=2, max_size=6)))
    runs = list(pairwise(cuts))
    kept = [run for run in runs if draw(st.booleans())] or runs[:1]
    blocks = [block for start, stop in kept for block in cover(start, stop, count)]
    return count, draw(st.permutations(blocks))


def compute(slots: Floats, gradients: list[Floats], blocks: tuple[Block, ...]) -> list[Piece]:
    """What a member does: it writes each task's sums over those of the task before."""
    pieces = []
    for slot, block in zip(slots, blocks, strict=False):
        slot[:] = plain_sum(gradients, block.start, block.stop, level_of(block))
        pieces.append(Piece(slot, (float(block.start), float(len(block)))))
    return pieces


@settings(deadline=None, max_examples=300)
@given(works(), st.integers(1, 5), st.integers(1, 4), st.data())
def test_any_division_order_and_losses_give_the_bits_of_the_plain_sum(
    work: tuple[int, list[Block]], members: int, at_most: int, data: st.DataObject
) -> None:
    count, blocks = work
    gradients = leaves(count)
    slots = {number: np.zeros((at_most, SIZE), np.float32) for number in range(members)}
    node_work, losses = NodeWork(blocks, count), 0
    busy: dict[int, tuple[Block, ...]] = {}
    while not node_work.is_complete:
        idle = [number for number in slots if number not in busy]
        if node_work.left and idle:
            paces = {number: data.draw(st.sampled_from([0.1, 1.0, 3.0])) for number in idle}
            given_now = node_work.hand_out(paces, at_most, {})
            assert all(0 < len(blocks) <= at_most for blocks in given_now.values())
            assert all(any(part in block for block in work[1]) for parts in given_now.values() for part in parts)
            busy |= given_now
        number = data.draw(st.sampled_from(sorted(busy)))
        pieces = compute(slots[number], gradients, busy.pop(number))
        if number not in node_work.out:
            continue  # it had been given up; what it wrote into its slots is nobody's
        if losses < 6 and data.draw(st.booleans()):
            losses += 1
            node_work.take_back(number)
            if data.draw(st.booleans()):
                busy[number] = ()  # it stands still, and answers too late
        else:
            node_work.answered(number, pieces)

    results = node_work.results(Buffers(SIZE))
    assert [result.block for result in results] == blocks
    for result in results:
        block = result.block
        np.testing.assert_array_equal(
            result.gradient, plain_sum(gradients, block.start, block.stop, level_of(block)), str(block)
        )
        assert result.metrics[1] == len(block)


def test_work_is_cut_into_as_few_blocks_as_the_shares_make() -> None:
    work = NodeWork([Block(0, 8)], 8)
    assert work.hand_out({3: 1.0, 5: 1.0}, 32, {}) == {3: (Block(0, 4),), 5: (Block(4, 8),)}
    work = NodeWork([Block(0, 8), Block(8, 10)], 16)
    assert work.hand_out({0: 1.0}, 32, {}) == {0: (Block(0, 8), Block(8, 10))}
    work = NodeWork([Block(0, 8)], 8)
    assert work.hand_out({0: 1.0, 1: 3.0}, 32, {}) == {0: (Block(0, 4), Block(4, 6)), 1: (Block(6, 8),)}


def test_members_have_the_same_microbatches_again() -> None:
    before = NodeWork([Block(0, 4)], 4).hand_out({0: 1.0, 1: 1.0}, 32, {})
    had = {member: sum(map(len, blocks)) for member, blocks in before.items()}
    assert NodeWork([Block(0, 4)], 4).hand_out({0: 1.0, 1: 1.05}, 32, had) == before


@pytest.mark.parametrize("stretch", [1, 3, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_a_sum_that_is_done_in_stretches_has_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, stretch: int, count: int
) -> None:
    monkeypatch.setattr(summation, "_STRETCH", stretch)
    gradients = list(np.random.default_rng(1).normal(size=(count, 23)).astype(np.float32))
    pieces = {Block(i, i + 1): Piece(gradient, (1.5, -float(i))) for i, gradient in enumerate(gradients)}
    out = np.full(23, np.nan, np.float32)
    metrics = tree_sum(Block(0, count), pieces, out)
    np.testing.assert_array_equal(out, plain_sum(gradients, 0, count))
    assert metrics == (1.5 * count, -sum(range(count)))


def test_a_sum_with_a_hole_is_an_error() -> None:
    pieces = {Block(0, 2): Piece(np.zeros(4, np.float32), ()), Block(3, 4): Piece(np.zeros(4, np.float32), ())}
    with pytest.raises(KeyError):
        tree_sum(Block(0, 4), pieces, np.zeros(4, np.float32))
