"""Blocks against the definition of the tree, by brute force."""

from itertools import combinations

import pytest

from ps_vae.ps.blocks import Block, cover, halves, is_block, parent, root, sibling

COUNTS = range(1, 34)


def tree(start, stop):
    """All nodes below [start, stop) by the definition: the left child is the largest power of two that is smaller."""
    if stop - start == 1:
        return {Block(start, stop)}
    middle = start + (1 << (stop - start - 1).bit_length() - 1)
    return {Block(start, stop)} | tree(start, middle) | tree(middle, stop)


@pytest.mark.parametrize("count", COUNTS)
def test_the_blocks_are_the_nodes_of_the_tree(count):
    everything = {Block(start, stop) for start in range(-1, count + 2) for stop in range(-1, count + 3)}

    assert {block for block in everything if is_block(block, count)} == tree(0, count)


@pytest.mark.parametrize("count", COUNTS)
def test_two_blocks_are_disjoint_or_nested(count):
    for left, right in combinations(tree(0, count), 2):
        overlap = min(left.stop, right.stop) - max(left.start, right.start)
        assert overlap <= 0 or left in right or right in left


@pytest.mark.parametrize("count", COUNTS)
def test_the_parent_is_the_smallest_block_around_and_the_sibling_is_the_rest_of_it(count):
    nodes = tree(0, count)
    for block in nodes - {root(count)}:
        above = min((node for node in nodes if block in node and node != block), key=len)
        assert parent(block, count) == above
        other = sibling(block, count)
        assert other in nodes
        assert sorted([block, other], key=lambda node: node.start) == [
            Block(above.start, other.start),
            Block(other.start, above.stop),
        ] or (other.start == above.start and other.stop == block.start and block.stop == above.stop)
        assert sibling(other, count) == block


@pytest.mark.parametrize("count", range(1, 18))
def test_a_cover_is_exact_and_no_smaller_one_exists(count):
    nodes = tree(0, count)
    # fewest[start][stop] by dynamic programming over all nodes
    fewest = {(start, start): 0 for start in range(count + 1)}
    for length in range(1, count + 1):
        for start in range(count - length + 1):
            stop = start + length
            fewest[start, stop] = min(
                1 + fewest[node.stop, stop] for node in nodes if node.start == start and node.stop <= stop
            )
    for start in range(count):
        for stop in range(start, count + 1):
            blocks = cover(start, stop, count)
            assert all(block in nodes for block in blocks)
            assert [index for block in blocks for index in range(block.start, block.stop)] == list(range(start, stop))
            assert len(blocks) == fewest[start, stop]


@pytest.mark.parametrize("count", range(2, 18))
def test_the_halves_of_a_node_are_the_two_largest_nodes_inside_of_it(count):
    nodes = tree(0, count)
    for block in nodes:
        if len(block) > 1:
            inside = [node for node in nodes if node in block and node != block]
            below = [node for node in inside if not any(node in other and node != other for other in inside)]
            assert list(halves(block)) == sorted(below, key=lambda node: node.start)
