"""Labels of rows: what a model can be conditioned on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.errors import DataError

__all__ = ["Labels", "labels_of"]

_MOST = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """names of the classes, in order, and of each row (n,) int64 the number of its class."""

    names: tuple[str, ...]
    numbers: npt.NDArray[np.int64]


def labels_of(place: str, *arrays: npt.NDArray[Any]) -> list[Labels]:
    """Of whole numbers (n,), or (n, 1), in several splits: the classes are the values that there are, in order.

    Raises DataError for anything else.
    """
    flat = [_flat(place, array) for array in arrays]
    values = np.unique(np.concatenate(flat))
    if len(values) > _MOST:
        raise DataError(f"{place}: {len(values):,} different labels, and {_MOST:,} are possible; take fewer classes")
    names = tuple(str(value) for value in values.tolist())
    return [Labels(names, np.searchsorted(values, numbers)) for numbers in flat]


def _flat(place: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shape: Sequence[int] = array.shape
    if array.dtype.kind not in "bui" or array.ndim not in (1, 2) or (array.ndim == 2 and shape[1] != 1):
        raise DataError(f"{place}: labels are whole numbers, one for each row, not {array.dtype} {tuple(shape)}")
    return np.asarray(array).reshape(-1)
