"""The parameter vector cut into one contiguous slice a shard."""

from itertools import pairwise

from ps_vae.errors import UsageError
from ps_vae.ps.record import record

__all__ = ["ALIGNMENT", "Slice", "partition"]

# Elements: 64 bytes of float32, a cache line; layouts put every tensor on such a boundary too.
ALIGNMENT = 16


@record
class Slice:
    """The elements start, …, stop-1 of the parameter vector."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def partition(size: int, shards: int) -> list[Slice]:
    """Cut `size` elements (a multiple of ALIGNMENT) into `shards` slices that differ by at most one cache line.

    Raises UsageError where there are more shards than cache lines.
    """
    lines = size // ALIGNMENT
    if not 1 <= shards <= lines:
        raise UsageError(f"{shards} shards cannot share {size} parameters; give --shards between 1 and {lines}")
    bounds = [ALIGNMENT * (lines * shard // shards) for shard in range(shards + 1)]
    return [Slice(start, stop) for start, stop in pairwise(bounds)]
