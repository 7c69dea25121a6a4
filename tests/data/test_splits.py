"""Splits: disjoint, complete, the source's own where it has them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.data.arrays import checked
from ps_vae.data.splitting import divide
from ps_vae.errors import UsageError


def numbered(n, first=0):
    return np.arange(first, first + n, dtype=np.float32)[:, None]


def source(train, validation=0, test=0):
    arrays = {"train": numbered(train)}
    if validation:
        arrays["validation"] = numbered(validation, 1000)
    if test:
        arrays["test"] = numbered(test, 2000)
    return checked("rows", arrays)


def contents(split):
    return split.array[split.where(np.arange(len(split))), 0].astype(int).tolist()


def divided(arrays, split):
    dataset = divide(arrays, split)
    return contents(dataset.train), contents(dataset.validation), contents(dataset.test)


@settings(deadline=None)
@given(n=st.integers(1, 500), parts=st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20)))
def test_fractions_that_sum_to_one_give_every_row_to_one_split(n, parts):
    fractions = [part / sum(parts) for part in parts]
    train, validation, test = divided(source(n), ",".join(map(str, fractions)))
    assert sorted(train + validation + test) == list(range(n))
    assert len(validation) == n * parts[1] // sum(parts)
    assert len(test) == n * parts[2] // sum(parts)


def test_fractions_that_sum_to_less_leave_rows_unused():
    train, validation, test = divided(source(100), "0.5,0.1,0.2")
    assert (len(train), len(validation), len(test)) == (50, 10, 20)
    assert len(set(train + validation + test)) == 80


def test_sorted_rows_are_spread_over_the_splits():
    for rows, expected in zip(divided(source(1000), "auto"), (800, 100, 100), strict=True):
        assert len(rows) == expected
        # Mean of a random tenth of 0..999: standard deviation 27.
        assert abs(np.mean(rows) - 499.5) < 120


def test_the_division_is_the_same_every_time():
    assert divided(source(50), "auto") == divided(source(50), "auto")
    assert divided(source(12), "0.5,0.25,0.25") == ([2, 11, 9, 8, 3, 10], [7, 1, 6], [0, 4, 5])


@pytest.mark.parametrize(
    ("arrays", "split", "train", "validation", "test"),
    [
        (source(60, test=10), "auto", range(55), range(55, 60), range(2000, 2010)),
        (source(60, test=10), "1,0,0", range(60), (), range(2000, 2010)),
        (source(60, test=10), "0.5,0.25,0", range(30), range(30, 45), range(2000, 2010)),
        (source(5, test=1), "auto", range(5), (), range(2000, 2001)),
        (source(60, validation=7), "auto", range(60), range(1000, 1007), ()),
        (source(60, validation=7), "0.9,0,0.1", range(54), range(1000, 1007), range(54, 60)),
        (source(60, validation=7, test=3), "auto", range(60), range(1000, 1007), range(2000, 2003)),
        (source(60, validation=7, test=3), "0.1,0,0", range(6), range(1000, 1007), range(2000, 2003)),
    ],
)
def test_a_source_keeps_its_own_splits_and_its_order(arrays, split, train, validation, test):
    assert divided(arrays, split) == (list(train), list(validation), list(test))


@pytest.mark.parametrize(
    ("arrays", "split", "says"),
    [
        (source(60, test=10), "0.8,0.1,0.1", "test rows of its own"),
        (source(60, validation=10), "0.8,0.1,0.1", "validation rows of its own"),
        (source(60), "0.8,0.2,0.1", "sum to 1 at most"),
        (source(60), "0,0.5,0.5", "the first above 0"),
        (source(60), "0.8,-0.1,0.1", "0 or more"),
        (source(60), "nan,0,0", "the first above 0"),
        (source(60), "0.8,nan,0", "0 or more"),
        (source(60), "0.8,0.2", "three fractions"),
        (source(60), "automatic", "give auto"),
        (source(60), "", "give auto"),
        (source(2), "0.1,0.1,0.1", "leaves none to train on"),
    ],
)
def test_words_that_make_no_sense_are_refused(arrays, split, says):
    with pytest.raises(UsageError, match=says):
        divide(arrays, split)


def test_asking_for_a_split_without_rows_says_which_have_some():
    dataset = divide(source(60, test=10), "1,0,0")
    assert dataset.split("test") is dataset.test
    with pytest.raises(UsageError, match="validation split has no rows; use train or test"):
        dataset.split("validation")
    with pytest.raises(UsageError, match="no split 'tset'"):
        dataset.split("tset")


def test_a_row_outside_its_split_is_refused():
    dataset = divide(source(60), "auto")
    for row in (-1, len(dataset.validation)):
        with pytest.raises(IndexError, match="split of 6 rows"):
            dataset.validation.where(np.array([0, row]))
