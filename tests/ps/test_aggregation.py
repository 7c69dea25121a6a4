"""Median and trimmed mean of microbatches: what they are, and that nobody's order shows in their bits."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.errors import PeerError, UsageError
from ps_vae.ps.aggregation.middle import middle, middle_of_metrics
from ps_vae.ps.aggregation.network import sorting_network
from ps_vae.ps.aggregation.separate import SeparateStep
from ps_vae.ps.aggregation.table import aggregation_for
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.messages import Push
from ps_vae.ps.permits import permit
from ps_vae.ps.rules import RunRules
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState
from ps_vae.ps.work import StepWork

seeds = st.integers(0, 1 << 32)


def table_of(seed, count, size=700):
    """Values of all sizes, with ties and zeros of both signs."""
    draw = np.random.default_rng(seed)
    values = draw.standard_normal((count, size)) * 10.0 ** draw.integers(-6, 7, (count, size))
    values[draw.random((count, size)) < 0.1] = -0.0
    values[draw.random((count, size)) < 0.1] = 0.0
    return np.where(draw.random((count, size)) < 0.2, values[:1], values).astype(np.float32)


def middle_of(table, cut):
    out = np.empty(table.shape[1], np.float32)
    middle(table.copy(), cut, out)
    return out


@pytest.mark.parametrize("count", range(1, 13))
def test_the_network_sorts_whatever_consists_of_zeros_and_ones_and_so_everything(count):
    rows = np.array(list(itertools.product([0, 1], repeat=count)))
    expected = np.sort(rows, axis=1)
    for low, high in sorting_network(count):
        assert low < high
        pair = np.sort(rows[:, [low, high]], axis=1)
        rows[:, low], rows[:, high] = pair[:, 0], pair[:, 1]
    np.testing.assert_array_equal(rows, expected)


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(3, 256))
def test_the_median_is_numpys_times_the_number(seed, count):
    table = table_of(seed, count, 40)
    expected = count * np.median(table.astype(np.float64), axis=0)
    found = middle_of(table, aggregation_for("median").cut(count))
    np.testing.assert_array_equal(found, expected.astype(np.float32))


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(4, 100), st.sampled_from(["0.05", "0.1", "0.25", "0.3", "0.45"]))
def test_the_trimmed_mean_is_scipys_times_the_number(seed, count, fraction):
    table = table_of(seed, count, 40)
    # SciPy cuts a float's share off: 0.3 of 10 are 2 there.
    share = float(fraction) + 1e-12
    expected = count * scipy.stats.trim_mean(table.astype(np.float64), share, axis=0)
    found = middle_of(table, aggregation_for(f"trimmed:{fraction}").cut(count))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(3, 40))
def test_neither_the_order_of_the_rows_nor_the_place_of_a_column_shows_in_the_bits(seed, count):
    table, draw = table_of(seed, count), np.random.default_rng(seed)
    cut = aggregation_for("trimmed:0.2").cut(count)
    whole = middle_of(table, cut)
    shuffled = middle_of(np.ascontiguousarray(table[draw.permutation(count)]), cut)
    at = int(draw.integers(1, table.shape[1]))
    pieces = [middle_of(np.ascontiguousarray(piece), cut) for piece in (table[:, :at], table[:, at:])]
    assert shuffled.tobytes() == whole.tobytes()
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(3, 30), st.sampled_from(["median", "trimmed:0.34"]))
def test_as_many_liars_as_are_cut_off_move_it_no_farther_than_honest_values_go(seed, count, words):
    table, draw = table_of(seed, count, 60), np.random.default_rng(seed)
    cut = aggregation_for(words).cut(count)
    liars = draw.permutation(count)[:cut]
    honest = np.delete(table, liars, axis=0).astype(np.float64)
    table[liars] = draw.choice(np.array([-3e38, 3e38, 1e9, -1.0], np.float32), (cut, 60))
    found = middle_of(table, cut) / count
    slack = 1e-6 * np.abs(honest).max(axis=0)
    assert (found >= honest.min(axis=0) - slack).all()
    assert (found <= honest.max(axis=0) + slack).all()


def test_metrics_have_their_own_middle():
    assert middle_of_metrics([(1.0, 7.0), (1e300, -2.0), (3.0, -1e300)], 1) == (9.0, -6.0)
    assert middle_of_metrics([(1.0,), (1e300,), (3.0,), (5.0,)], 1) == (16.0,)


@pytest.mark.parametrize(
    ("words", "count", "cut"),
    [
        ("median", 3, 1),
        ("median", 4, 1),
        ("median", 9, 4),
        ("median", 2, 0),
        ("trimmed:0.3", 10, 3),
        ("trimmed:0.29", 100, 29),
        ("trimmed:0.49", 3, 1),
        ("trimmed:0.1", 9, 0),
    ],
)
def test_so_many_are_cut_off_as_the_words_say(words, count, cut):
    assert aggregation_for(words).cut(count) == cut


@pytest.mark.parametrize("words", ["", "mode", "median:1", "trimmed", "trimmed:", "trimmed:0.1:0.2", "trimmed:nan"])
def test_other_words_are_refused(words):
    with pytest.raises(UsageError):
        aggregation_for(words)


def test_the_first_push_of_a_microbatch_counts_and_arrays_come_back():
    buffers, tables = Buffers(5), Buffers(15)
    for _ in range(3):
        step = SeparateStep(aggregation_for("median"), 3, buffers, tables)
        for index, value in [(2, 4.0), (0, 1.0), (2, 9.0), (0, 0.0), (1, 3.0)]:
            gradient = buffers.take()
            gradient[:] = value
            is_new = step.add(Block(index, index + 1), gradient, (value,), pooled=True)
            assert is_new == ((index, value) in [(2, 4.0), (0, 1.0), (1, 3.0)])
        assert step.is_complete
        (found,), metrics = step.parts()
        np.testing.assert_array_equal(found, np.full(5, 9.0, np.float32))
        assert metrics == (9.0,)
        step.close()
    assert (buffers.made, tables.made) == (1, 1)
    assert (len(buffers._free), len(tables._free)) == (1, 1)


def test_a_shard_that_aggregates_takes_no_sums():
    median, secret = aggregation_for("median"), b"k" * 16
    rules = RunRules(b"r" * 16, 4, 9, parse_consistency("bsp"), 9, metrics=1, aggregation=median, secret=secret)
    machine = Shard(0, rules, ShardState(0, np.zeros(4, np.float32), {}), lambda *_: None, Buffers(4))

    shown = permit(secret, b"s" * 16, 1, 0, Block(0, 2))
    push = Push(b"r" * 16, 0, b"s" * 16, 1, 0, 0, 2, 0, (1.0,), None, (np.ones(4, np.float32),), shown)

    with pytest.raises(PeerError) as refusal:
        machine.handle("w", push, 0.0)

    assert refusal.value.code == "bad-block"


@given(st.integers(1, 40), st.data())
def test_separate_work_is_handed_out_in_single_microbatches_each_once(count, data):
    work = StepWork(0, count, separate=True)
    taken = []
    while work.left:
        share = data.draw(st.integers(1, count))
        taken += work.take(share)
    assert taken == [Block(index, index + 1) for index in range(count)]
