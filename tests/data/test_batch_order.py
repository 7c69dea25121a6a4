"""The order of examples: a permutation in every epoch, seekable, evenly spread."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from ps_vae.data import rows_of
from ps_vae.errors import UsageError

SEEDS = st.integers(0, 2**64 - 1)
WORD = 2**64 - 1
EDGES = st.builds(lambda half, near: 4**half + near, st.integers(1, 30), st.integers(-1, 1))
"""Numbers of rows where the domain of the permutation grows."""


def order(seed, first, n, count):
    return rows_of(seed, first, n, np.empty(count, np.int64))


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def row_in_plain_python(seed, position, n):
    golden = 0x9E3779B97F4A7C15
    epoch, index = divmod(position, n)
    state = mix(mix((seed + golden) & WORD) ^ ((epoch + golden) & WORD))
    keys = [mix((state + (i + 1) * golden) & WORD) for i in range(8)]
    half = next(h for h in itertools.count(3) if 4**h >= n)
    while True:
        left, right = divmod(index, 2**half)
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) % 2**half)
        index = left * 2**half + right
        if index < n:
            return index


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 2**40))
def test_every_epoch_shows_every_row_once(n, seed, epoch):
    assert np.array_equal(np.sort(order(seed, epoch * n, n, n)), np.arange(n))


@settings(deadline=None, max_examples=100)
@given(n=st.integers(1, 2**62) | EDGES, seed=SEEDS, data=st.data())
def test_rows_equal_those_of_a_twin_in_plain_python(n, seed, data):
    first = data.draw(st.integers(0, 2**63 - 10))
    assert order(seed, first, n, 5).tolist() == [row_in_plain_python(seed, first + i, n) for i in range(5)]


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 300), seed=SEEDS, first=st.integers(0, 10**6), count=st.integers(0, 700), cut=st.integers(0, 700)
)
def test_a_stretch_of_positions_is_the_same_whole_or_in_parts(n, seed, first, count, cut):
    cut = min(cut, count)
    parts = np.concatenate([order(seed, first, n, cut), order(seed, first + cut, n, count - cut)])
    assert np.array_equal(order(seed, first, n, count), parts)


def test_the_order_is_the_one_that_earlier_runs_had():
    assert order(0, 0, 10, 10).tolist() == [2, 1, 9, 0, 7, 3, 6, 4, 5, 8]
    assert order(12345, 2**40, 2**40 - 3, 3).tolist() == [371386576981, 770675167439, 825020264670]


def test_epochs_and_seeds_differ():
    n = 1000
    orders = [order(seed, epoch * n, n, n) for seed in (0, 1, 2**63) for epoch in (0, 1, 2)]
    for one, other in itertools.combinations(orders, 2):
        # Two random orders agree in one place on average; more than 12 has probability 1e-10.
        assert (one == other).sum() <= 12


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_orders_of_few_rows_come_equally_often(n):
    epochs = 12_000
    shown = order(7, 0, n, n * epochs).reshape(epochs, n)
    counts = np.unique(shown @ n ** np.arange(n), return_counts=True)[1]
    orders = len(list(itertools.permutations(range(n))))
    expected = epochs / orders
    assert len(counts) == orders
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-4, orders - 1)


@pytest.mark.parametrize("n", [10, 64, 200])
def test_every_row_comes_equally_often_at_every_place(n):
    epochs = 4000
    shown = order(3, 0, n, n * epochs).reshape(epochs, n)
    counts = np.bincount((shown + n * np.arange(n)).ravel(), minlength=n * n)
    # Rows and columns of the table have fixed sums: (n - 1)^2 degrees of freedom, and a factor (n - 1) / n.
    statistic = ((counts - epochs / n) ** 2 / (epochs / n)).sum() * (n - 1) / n
    assert chi2.isf(1 - 1e-4, (n - 1) ** 2) < statistic < chi2.isf(1e-4, (n - 1) ** 2)


@pytest.mark.parametrize("n", [33, 257])
def test_neighbours_in_the_order_are_not_related(n):
    shown = order(5, 0, n, n * 1000).reshape(1000, n)
    counts = np.bincount(((shown[:, 1:] - shown[:, :-1]) % n).ravel(), minlength=n)[1:]
    expected = counts.sum() / (n - 1)
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-4, n - 2)


@pytest.mark.parametrize(
    ("seed", "first", "n", "names"),
    [
        (-1, 0, 5, "seed -1"),
        (2**64, 0, 5, "2^64"),
        (0, 0, 0, "0 rows"),
        (0, -1, 5, "position -1"),
        (0, 2**63 - 1, 5, "2^63"),
    ],
)
def test_numbers_out_of_range_are_refused(seed, first, n, names):
    with pytest.raises(UsageError, match=names.replace("^", r"\^")):
        order(seed, first, n, 1)


def test_an_output_of_another_type_is_refused():
    with pytest.raises(UsageError, match="int32"):
        rows_of(0, 0, 5, np.empty(3, np.int32))
