"""Mean of every feature over a split, in bounded memory."""

import numpy as np
import numpy.typing as npt

from ps_vae.data.dataset import Split
from ps_vae.data.gather import gather
from ps_vae.errors import UsageError

__all__ = ["pixel_means"]

_NUMBERS_AT_ONCE = 1 << 20


def pixel_means(split: Split) -> npt.NDArray[np.float64]:
    """(features,) float64: means of the scaled float32 values, summed in float64, about 4 MiB of rows at a time.

    Raises UsageError for a split without rows.
    """
    if not len(split):
        raise UsageError("the means of a split without rows are not defined: use another --split")
    rows_at_once = min(len(split), max(1, _NUMBERS_AT_ONCE // split.features))
    scaled = np.empty((rows_at_once, split.features), np.float32)
    total = np.zeros(split.features)
    for start in range(0, len(split), rows_at_once):
        rows = np.arange(start, min(start + rows_at_once, len(split)))
        total += gather(split, rows, scaled[: len(rows)]).sum(axis=0, dtype=np.float64)
    return total / len(split)
