"""What a shard is told about updating its slice: callables, so that it needs to know no optimizer."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.ps.record import record

__all__ = ["LookAhead", "Moment", "Update"]

Array = npt.NDArray[np.float32]


@record
class Moment:
    """Where an update stands in the run.

    version  steps that are in the weights
    updates  how many updates there were: as many as steps, or more where blocks are applied one by one
    share    of a step that is applied: 1, or that of a block
    trust    1, or less for a gradient that is much staler than usual
    """

    version: int
    updates: int
    share: float = 1.0
    trust: float = 1.0


Update = Callable[[Array, tuple[Array, ...], dict[str, Array], Moment, Array], None]
"""update(weights, parts, optimizer state, moment, out): one update, written into `out`.

The summed gradient is the one part, or left + right of two: the last addition takes no pass of its own.
"""

LookAhead = Callable[[Array, Array, float, Array], None]
"""look_ahead(weights before, weights, k, out): where the weights are expected after `k` more updates."""
