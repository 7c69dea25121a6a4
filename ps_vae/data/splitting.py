"""Which rows train, validate and test.

    the source has            --split auto                           --split a,b,c (fractions)
    one set of rows           0.8, 0.1, 0.1                          a, b, c of the rows
    train and test            test as it is; validation the last     a, b of the training rows; c must be 0
                              twelfth of the training rows, but
                              at most 1,000
    train and validation      as they are, no test                   a, c of the training rows; b must be 0
    all three                 as they are                            a of the training rows; b and c must be 0

So "1,0,0" trains on all the training rows and keeps what else the source has. A source with one set of rows may be
sorted (by label, by date), so its rows are first shuffled by a fixed permutation: the same in every run, whatever the
run's seed. A source with splits of its own has been shuffled by its makers: train rows come first, then validation,
then test, in the order of the file. Fractions that sum to less than 1 leave rows unused.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from ps_vae.data.arrays import Arrays
from ps_vae.data.dataset import Dataset, Split, describe, fingerprint
from ps_vae.data.labels import Labels
from ps_vae.errors import DataError, UsageError

__all__ = ["divide"]

_ROUNDING = 1e-9
_MOST_HELD_OUT = 1000


def divide(arrays: Arrays, split: str, *, labelled: bool = False) -> Dataset:
    """Make a data set from what a source delivered.

    split     "auto" or three fractions "train,validation,test"
    labelled  whether rows are to carry labels

    Raises UsageError for words it does not know, fractions below 0 or above 1 in sum, no training rows, or a
    fraction of a split that the source brings itself; DataError where there are not as many labels as rows.
    """
    labels = _labels(arrays) if labelled else {}
    classes = labels["train"].names if labels else ()
    fractions = _fractions(arrays, split)
    n = len(arrays.train)
    validation = math.floor(n * fractions[1] + _ROUNDING)
    test = math.floor(n * fractions[2] + _ROUNDING)
    all_rows = sum(fractions) >= 1 - _ROUNDING
    train = n - validation - test if all_rows else math.floor(n * fractions[0] + _ROUNDING)
    if train < 1:
        raise UsageError(f"{arrays.name}: --split {split} of {n} rows leaves none to train on")

    shuffled = arrays.validation is None and arrays.test is None
    ends = (train, train + validation, train + validation + test)

    def part(source: str, array: npt.NDArray[Any], start: int, stop: int) -> Split:
        is_mixed = shuffled and source == "train"
        numbers = labels[source].numbers if labels else None
        place = arrays.name if shuffled else f"the {source} rows of {arrays.name}"
        return Split(array, start, stop, is_mixed, arrays.divisor, numbers, len(classes), place)

    train_split = part("train", arrays.train, 0, ends[0])
    validation_split = part("train", arrays.train, ends[0], ends[1])
    test_split = part("train", arrays.train, ends[1], ends[2])
    if arrays.validation is not None:
        validation_split = part("validation", arrays.validation, 0, len(arrays.validation))
    if arrays.test is not None:
        test_split = part("test", arrays.test, 0, len(arrays.test))

    splits = (train_split, validation_split, test_split)
    return Dataset(
        name=arrays.name,
        train=train_split,
        validation=validation_split,
        test=test_split,
        features=train_split.features,
        image_shape=arrays.image_shape,
        fingerprint=fingerprint(splits, (*arrays.variables, *classes)),
        description=describe(arrays.name, splits, arrays.image_shape),
        columns=arrays.columns or tuple(f"x{number}" for number in range(train_split.features)),
        variables=arrays.variables,
        classes=classes,
    )


def _labels(arrays: Arrays) -> Mapping[str, Labels]:
    if arrays.labels is None:
        raise UsageError(f"{arrays.name} has no labels; leave --condition out, or use data that have some")
    labels = arrays.labels()
    for name, rows in (("train", arrays.train), ("validation", arrays.validation), ("test", arrays.test)):
        if rows is not None and (name not in labels or len(labels[name].numbers) != len(rows)):
            have = f"{len(labels[name].numbers):,}" if name in labels else "no"
            raise DataError(f"{arrays.name}: {have} labels for {len(rows):,} {name} rows; give one for each")
    return labels


def _fractions(arrays: Arrays, split: str) -> tuple[float, float, float]:
    own_validation, own_test = arrays.validation is not None, arrays.test is not None
    if split == "auto":
        if own_validation:
            return 1.0, 0.0, 0.0
        # Enough to watch a run by, and what trains is nearly all of what others train on.
        held_out = min(1 / 12, _MOST_HELD_OUT / len(arrays.train))
        return (1 - held_out, held_out, 0.0) if own_test else (0.8, 0.1, 0.1)
    try:
        train, validation, test = (float(word) for word in split.split(","))
    except ValueError:
        raise UsageError(f'--split {split!r}: give auto, or three fractions such as "0.8,0.1,0.1"') from None
    # Written so that NaN fails too.
    if not (train > 0 and validation >= 0 and test >= 0 and train + validation + test <= 1 + _ROUNDING):
        raise UsageError(f"--split {split}: fractions are 0 or more, the first above 0, and sum to 1 at most")
    for label, own, fraction in (("validation", own_validation, validation), ("test", own_test, test)):
        if own and fraction:
            raise UsageError(
                f"--split {split}: {arrays.name} has {label} rows of its own, which are kept; "
                f"make the {label} fraction 0"
            )
    return train, validation, test
