"""Mean and variance of every feature over a split, in bounded memory."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ps_vae.data.dataset import Split
from ps_vae.data.gather import gather
from ps_vae.errors import UsageError

__all__ = ["Moments", "feature_moments"]

_NUMBERS_AT_ONCE = 1 << 18


class Moments(NamedTuple):
    """Of each feature, (features,) float64."""

    means: npt.NDArray[np.float64]
    variances: npt.NDArray[np.float64]


def feature_moments(split: Split, names: Sequence[str] = ()) -> Moments:
    """Of the scaled float32 values, summed in float64, a MiB of rows at a time; missing ones, NaN, do not count.

    What is summed is the distance from the first rows' means, so that few digits are lost where these are far from zero
    (Chan, Golub & LeVeque 1983, section 3). Raises UsageError for a split without rows, or with a feature without
    values, by its name if there are `names`.
    """
    if not len(split):
        raise UsageError("the means of a split without rows are not defined: use another --split")
    rows_at_once = min(len(split), max(1, _NUMBERS_AT_ONCE // split.features))
    scaled = np.empty((rows_at_once, split.width), np.float32)
    shift = np.zeros(split.features, np.float32)
    total, squares, counts = np.zeros((3, split.features))
    for start in range(0, len(split), rows_at_once):
        rows = np.arange(start, min(start + rows_at_once, len(split)))
        piece = gather(split, rows, scaled[: len(rows)])[:, : split.features]
        missing = np.isnan(piece)
        here = len(rows) - missing.sum(axis=0)
        piece[missing] = 0
        if start == 0:
            shift[:] = piece.sum(axis=0, dtype=np.float64) / np.maximum(here, 1)
        piece -= shift
        piece[missing] = 0
        counts += here
        total += piece.sum(axis=0, dtype=np.float64)
        # float32 has numbers of which it has no square.
        squares += np.square(piece, dtype=np.float64).sum(axis=0)
    if not counts.all():
        number = int(counts.argmin())
        which = repr(names[number]) if names else f"feature {number}"
        raise UsageError(f"{which} has no value in any of the training rows; leave it out, or give another --split")
    apart = total / counts
    return Moments(shift + apart, squares / counts - np.square(apart))
