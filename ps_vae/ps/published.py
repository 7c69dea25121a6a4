"""The versions of a slice that can be pulled."""

import numpy as np
import numpy.typing as npt

from ps_vae.ps.buffers import Buffers
from ps_vae.ps.consistency import Versions

__all__ = ["Published"]

Array = npt.NDArray[np.float32]


class Published:
    """The newest version of a slice, the one before it, and the pinned one.

    The one before: work of that step may have reached this shard and not another; whoever repeats it needs the weights.
    The pinned one: the last milestone, which evaluators read while the training goes on.

    Invariant: an array is not written to while it is here; afterwards it goes to `buffers`, who wait for its readers.
    """

    def __init__(self, version: int, weights: Array, buffers: Buffers) -> None:
        self.newest = version
        self._pinned = version
        self._arrays = {version: weights}
        self._buffers = buffers

    @property
    def weights(self) -> Array:
        """The newest; not to be written to."""
        return self._arrays[self.newest]

    def add(self, weights: Array, *, is_pinned: bool) -> None:
        """Publish the next version, and give back what is not kept any more."""
        self.newest += 1
        self._arrays[self.newest] = weights
        if is_pinned:
            self._pinned = self.newest
        for version in [v for v in self._arrays if v < self.newest - 1 and v != self._pinned]:
            self._buffers.give(self._arrays.pop(version))

    def find(self, want: Versions) -> tuple[int, Array] | None:
        """The newest version wanted, if it is here."""
        found = [version for version in self._arrays if version in want]
        return (max(found), self._arrays[max(found)]) if found else None
