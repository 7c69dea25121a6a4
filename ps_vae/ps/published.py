"""The weights of a slice that can be pulled."""

import numpy as np
import numpy.typing as npt

from ps_vae.ps.buffers import Buffers
from ps_vae.ps.consistency import Versions

__all__ = ["Published"]

Array = npt.NDArray[np.float32]


class Published:
    """The newest version of a slice, the ones `before` it, the pinned one, and what stale work starts from.

    The ones before, in a synchronous run: work of their steps may have reached this shard and not another; whoever
    repeats it needs the weights.
    The pinned one: the last milestone, which evaluators read while the training goes on.
    Ahead: where the weights will be when a gradient computed now arrives, for those who take any newer version.

    Invariant: an array is not written to while it is here; afterwards it goes to `buffers`, who wait for its readers.
    """

    def __init__(self, version: int, weights: Array, buffers: Buffers, *, before: int) -> None:
        self.newest = version
        self._before = before
        self._arrays = {version: weights}
        self._pinned = (version, weights)
        self._ahead: Array | None = None
        self._buffers = buffers

    @property
    def weights(self) -> Array:
        """The newest; not to be written to."""
        return self._arrays[self.newest]

    def add(self, version: int, weights: Array, *, is_pinned: bool, ahead: Array | None = None) -> None:
        """Publish new weights, which may be of the same version as before; give back what is not kept any more."""
        held = self.arrays()
        self.newest, self._ahead = version, ahead
        self._arrays[version] = weights
        self._arrays = {known: array for known, array in self._arrays.items() if known >= version - self._before}
        if is_pinned:
            self._pinned = (version, weights)
        for array in (held[key] for key in held.keys() - self.arrays().keys()):
            self._buffers.give(array)

    def arrays(self) -> dict[int, Array]:
        """Everything that is kept, by the identity of the array."""
        ahead = [] if self._ahead is None else [self._ahead]
        return {id(array): array for array in (*self._arrays.values(), self._pinned[1], *ahead)}

    def find(self, want: Versions) -> tuple[int, Array] | None:
        """The newest version wanted, if it is here."""
        if want.high is None and self.newest in want:
            # Also while the newest is the pinned version with parts of later steps: who takes any wants these.
            return self.newest, self._arrays[self.newest] if self._ahead is None else self._ahead
        if self.newest in want and self._pinned[0] < self.newest:
            return self.newest, self._arrays[self.newest]
        # The pinned array last: in an asynchronous run the newest of the same version may hold parts of a later step.
        arrays = {**self._arrays, self._pinned[0]: self._pinned[1]}
        found = [version for version in arrays if version in want]
        return (max(found), arrays[max(found)]) if found else None
