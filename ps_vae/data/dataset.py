"""A data set: three splits of rows, as they are stored, and what a run has to know about them."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.columns import Column
from ps_vae.data.permutation import ROUNDS, SPLIT_SEED, half_bits, permuted, round_keys
from ps_vae.errors import UsageError
from ps_vae.jit import exact_kernel

__all__ = ["SPLITS", "Dataset", "Split", "describe", "fingerprint"]

SPLITS = ("train", "validation", "test")

_SAMPLED_ROWS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Some rows of an array, named 0 .. len(split) - 1; `gather` reads them.

    array     (any number of rows, features), as stored: uint8, float32, ...; read-only, perhaps memory-mapped
    start     row r of the split is position start + r of the array ...
    stop      (one past the last position)
    shuffled  ... or, where this is true, the image of that position under the fixed permutation SPLIT_SEED
    divisor   what a stored number is divided by to become a float32
    labels    of each row of `array` the number of its class, where rows carry one
    classes   how many there are
    place     in words, what the rows of `array` are counted in: the file, or the part of it that this is
    """

    array: npt.NDArray[Any]
    start: int
    stop: int
    shuffled: bool
    divisor: float
    labels: npt.NDArray[np.int64] | None = None
    classes: int = 0
    place: str = ""

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def features(self) -> int:
        return int(self.array.shape[1])

    @property
    def width(self) -> int:
        """Numbers that `gather` makes of a row: its features, and one for each class."""
        return self.features + self.classes

    def where(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which rows of `array` the split's `rows` (any number,) are. Raises IndexError outside 0 .. len - 1."""
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a split of {len(self)} rows")
        found = rows + self.start
        if self.shuffled:
            _shuffle(np.uint64(len(self.array)), found)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Rows to train on, to choose by and to report on.

    name         as the user gave it
    features     numbers a row
    image_shape  (height, width) where rows are pictures, height * width == features
    fingerprint  hexadecimal; equal where the data are (shapes, types, sampled rows), whatever file they lie in
    description  one line for people
    columns      names of the features: the file's own, else x0, x1, ...
    variables    what the features are, where they were asked for by the names of columns
    classes      names of the classes, where rows carry a label
    """

    name: str
    train: Split
    validation: Split
    test: Split
    features: int
    image_shape: tuple[int, int] | None
    fingerprint: str
    description: str
    columns: tuple[str, ...]
    variables: tuple[Column, ...] = ()
    classes: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """The split `name`, with at least one row in it; UsageError otherwise."""
        if name not in SPLITS:
            raise UsageError(f"there is no split {name!r}: choose from {', '.join(SPLITS)}")
        split: Split = getattr(self, name)
        if not len(split):
            filled = [other for other in SPLITS if len(getattr(self, other))]
            raise UsageError(
                f"{self.name}: the {name} split has no rows; use {' or '.join(filled)}, or another --split"
            )
        return split


def fingerprint(splits: tuple[Split, Split, Split], names: tuple[object, ...] = ()) -> str:
    """Hash of shapes, types, divisors and up to 1,024 evenly spaced rows of each split; 32 hexadecimal digits.

    Reads no more than the sampled rows, and their labels. Byte order in the file does not matter.

    names  what the numbers stand for, where they were asked for by name
    """
    digest = hashlib.blake2b(digest_size=16)
    if names:
        digest.update(f"{names!r}\n".encode())
    for split in splits:
        stored = split.array.dtype.newbyteorder("<")
        digest.update(f"{len(split)}x{split.features} {stored.str} /{split.divisor!r}\n".encode())
        rows = np.linspace(0, len(split) - 1, min(len(split), _SAMPLED_ROWS)).astype(np.int64)
        digest.update(np.ascontiguousarray(split.array[split.where(rows)], stored).tobytes())
        if split.labels is not None:
            digest.update(split.labels[split.where(rows)].astype("<i8").tobytes())
    return digest.hexdigest()


def describe(name: str, splits: tuple[Split, Split, Split], image_shape: tuple[int, int] | None) -> str:
    """For example: mnist-5k: 28x28 uint8, 4,000 train + 500 validation + 500 test rows"""
    width = f"{image_shape[0]}x{image_shape[1]}" if image_shape else f"{splits[0].features} features of"
    counts = " + ".join(f"{len(split):,} {label}" for split, label in zip(splits, SPLITS, strict=True))
    return f"{name}: {width} {splits[0].array.dtype.name}, {counts} rows"


@exact_kernel
def _shuffle(n: np.uint64, positions: npt.NDArray[np.int64]) -> None:
    half = half_bits(n)
    keys = np.empty(ROUNDS, np.uint64)
    round_keys(SPLIT_SEED, np.uint64(0), keys)
    for i in range(positions.shape[0]):
        positions[i] = permuted(np.uint64(positions[i]), n, half, keys)
