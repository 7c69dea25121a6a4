"""The kinds of array that the mathematics is written for, and how one is made."""

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Floats", "Rows", "Sums", "aligned_zeros"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating]  # float32 in use, float64 for checking; C order
Sums = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]  # names of rows


def aligned_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> Array:
    """A new array of zeros, in C order, that starts on a 64-byte boundary."""
    itemsize = np.dtype(dtype).itemsize
    memory = np.zeros(prod(shape) * itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + prod(shape) * itemsize].view(dtype).reshape(shape)
