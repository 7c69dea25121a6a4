"""The sum of a step against the recursion that defines it, whatever comes in whatever order."""

import functools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.ps.blocks import Block, is_block, root
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.reduction import StepSum, add_metrics

SIZE = 5


def leaves(count, seed):
    """Numbers whose sum depends on the order in which it is made."""
    generator = np.random.default_rng(seed)
    scale = 10.0 ** generator.integers(-4, 5, (count, 1))
    return (generator.standard_normal((count, SIZE)) * scale).astype(np.float32)


def recursive(values, start, stop):
    if stop - start == 1:
        return values[start], (float(start), 0.1 * start)
    middle = start + (1 << (stop - start - 1).bit_length() - 1)
    left, right = recursive(values, start, middle), recursive(values, middle, stop)
    return left[0] + right[0], add_metrics(left[1], right[1])


def blocks_of(count):
    return [Block(a, b) for a in range(count) for b in range(a + 1, count + 1) if is_block(Block(a, b), count)]


@st.composite
def arrivals(draw):
    """Some of the blocks in any order, some of them several times, then whatever is still missing."""
    count = draw(st.integers(1, 17))
    blocks = blocks_of(count)
    pushed = draw(st.lists(st.sampled_from(blocks), max_size=2 * count))
    rest = draw(st.permutations([Block(index, index + 1) for index in range(count)]))
    return count, [*pushed, *rest], draw(st.integers(0, 1000))


@given(arrivals())
@settings(max_examples=150)
def test_any_order_repetition_and_nesting_gives_the_bits_of_the_recursive_sum(arrival):
    count, blocks, seed = arrival
    values = leaves(count, seed)
    buffers = Buffers(SIZE)
    total = StepSum(count, buffers)
    given_in = []
    counted = 0
    for block in blocks:
        gradient, metrics = recursive(values, block.start, block.stop)
        gradient = gradient.copy()
        gradient.flags.writeable = False
        before = total.missing
        is_new = total.add(block, gradient, metrics)
        given_in.append((gradient, gradient.copy()))
        counted += before - total.missing
        assert is_new == (before > total.missing)

    assert total.is_complete
    assert counted == count
    parts, metrics = total.parts()
    gradient = functools.reduce(np.add, parts)
    expected, expected_metrics = recursive(values, 0, count)
    assert gradient.tobytes() == expected.tobytes()
    assert metrics == expected_metrics
    for array, copy in given_in:
        assert np.array_equal(array, copy)


@given(arrivals())
@settings(max_examples=100)
def test_all_buffers_come_back_and_none_is_handed_out_twice(arrival):
    count, blocks, seed = arrival
    values = leaves(count, seed)
    buffers = Watched(SIZE)
    total = StepSum(count, buffers)
    for block in blocks:
        gradient, metrics = recursive(values, block.start, block.stop)
        total.add(block, gradient.copy(), metrics)
    total.close()

    assert buffers.out == set()
    # A sum over count leaves never waits with more partial sums than the tree is high.
    assert buffers.made <= count.bit_length() + 1


class Watched(Buffers):
    """Knows what is out."""

    def __init__(self, size):
        super().__init__(size)
        self.out = set()

    def take(self):
        array = super().take()
        assert id(array) not in self.out, "handed out twice"
        self.out.add(id(array))
        return array

    def give(self, array):
        assert id(array) in self.out, "given back what was not out"
        self.out.remove(id(array))
        super().give(array)


def test_a_block_inside_a_counted_one_is_dropped():
    total = StepSum(4, Buffers(1))

    assert total.add(Block(0, 4), np.ones(1, np.float32), (1.0,))
    assert not total.add(Block(2, 3), np.full(1, 100, np.float32), (100.0,))
    assert [part.tolist() for part in total.parts()[0]] == [[1.0]]


def test_a_block_around_counted_ones_takes_their_place():
    total = StepSum(4, Buffers(1))
    total.add(Block(0, 1), np.full(1, 100, np.float32), (100.0,))
    total.add(Block(2, 4), np.full(1, 100, np.float32), (100.0,))

    assert total.add(root(4), np.full(1, 7, np.float32), (7.0,))
    assert ([part.tolist() for part in total.parts()[0]], total.parts()[1]) == ([[7.0]], (7.0,))
