"""What a source delivers: arrays checked to be rows of finite numbers, alike in every split."""

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.columns import Column
from ps_vae.data.labels import Labels
from ps_vae.errors import DataError

__all__ = ["Arrays", "checked"]

_NUMBERS_AT_ONCE = 1 << 20
_READ_AHEAD_PAYS = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """Rows of a source, (n, features) each, alike in features and dtype, read-only.

    validation, test  None where the source has no such split of its own
    image_shape       (height, width) where the source says that rows are pictures
    divisor           what a stored number is divided by to become a float32
    columns           names of the features, where the source has them
    variables         what the features are, where they were asked for by the names of columns; numbers may be missing
    labels            called for the labels of each split, where the source has some
    """

    name: str
    train: npt.NDArray[Any]
    validation: npt.NDArray[Any] | None
    test: npt.NDArray[Any] | None
    image_shape: tuple[int, int] | None
    divisor: float
    columns: tuple[str, ...] | None = None
    variables: tuple[Column, ...] = ()
    labels: Callable[[], Mapping[str, Labels]] | None = None


def checked(
    name: str,
    arrays: Mapping[str, npt.NDArray[Any]],
    divisor: float | None = None,
    columns: tuple[str, ...] | None = None,
    variables: tuple[Column, ...] = (),
    labels: Callable[[], Mapping[str, Labels]] | None = None,
) -> Arrays:
    """Check arrays that a source has read.

    name     what errors begin with: the path, or the data set's name
    arrays   "train" and perhaps "validation" and "test": (n, features), (n, height, width) or (n, ...) of bool,
             integers or floats; memory-mapped ones are read in chunks, and only where they are floats
    divisor  None: 255 for uint8, 1 for everything else
    columns, variables, labels
             as in Arrays

    Raises DataError for no rows, fewer than two dimensions, other types, NaN, infinity, numbers too large for
    float32, and splits that differ in shape or type. Arrays of more than two dimensions in Fortran order are copied.
    """
    misses = any(column.misses for column in variables)
    rows = {
        split: _rows(f"{name}: {split}" if len(arrays) > 1 else name, array, misses) for split, array in arrays.items()
    }
    train = rows["train"]
    for split, array in rows.items():
        if (array.shape[1], array.dtype) != (train.shape[1], train.dtype):
            raise DataError(
                f"{name}: {split} has {array.shape[1]} features of {array.dtype}, train has {train.shape[1]} of "
                f"{train.dtype}; make them alike"
            )
    if divisor is None:
        divisor = 255.0 if train.dtype == np.uint8 else 1.0
    shape = _image_shape(arrays["train"].shape)
    return Arrays(name, train, rows.get("validation"), rows.get("test"), shape, divisor, columns, variables, labels)


def _rows(place: str, array: npt.NDArray[Any], misses: bool) -> npt.NDArray[Any]:
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise DataError(f"{place}: cannot train on {array.dtype}; save it as uint8 or float32")
    if array.ndim < 2:
        raise DataError(
            f"{place}: {array.ndim}-dimensional, but rows and columns (n, features) or pictures (n, height, width) "
            "are needed; labels cannot be trained on, and one column is reshape(-1, 1)"
        )
    if 0 in array.shape:
        raise DataError(f"{place}: shape {array.shape} holds nothing to train on; give a file with rows")
    # A plain read-only array, also for np.memmap: kernels are compiled once for all sources.
    rows = np.asarray(array).reshape(len(array), -1).view()
    rows.flags.writeable = False
    if rows.dtype.kind == "f":
        _check_finite(place, rows, misses)
    _expect_random_reads(rows)
    return rows


def _check_finite(place: str, rows: npt.NDArray[Any], misses: bool) -> None:
    rows_at_once = max(1, _NUMBERS_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), rows_at_once):
        with np.errstate(over="ignore"):
            single = rows[start : start + rows_at_once].astype(np.float32, copy=False)
        finite = ~np.isinf(single) if misses else np.isfinite(single)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            value = rows[start + row, column]
            raise DataError(
                f"{place}: {value} at row {start + row}, column {column} (counted from 0); "
                "float32 numbers are needed everywhere, so replace it or leave the row out"
            )


def _expect_random_reads(rows: npt.NDArray[Any]) -> None:
    """Switch read-ahead off for a large memory-mapped file: it would read megabytes for each row of a batch.

    A small file is soon in memory as a whole, and read-ahead gets it there.
    """
    owner: object = rows
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and rows.nbytes > _READ_AHEAD_PAYS and hasattr(owner, "madvise"):
        owner.madvise(mmap.MADV_RANDOM)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int] | None:
    if len(shape) == 3:
        return shape[1], shape[2]
    if len(shape) == 4 and shape[3] == 1:
        return shape[1], shape[2]
    if len(shape) == 4 and shape[1] == 1:
        return shape[2], shape[3]
    return None
