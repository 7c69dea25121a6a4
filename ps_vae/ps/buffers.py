"""Arrays of one size that are used again once nobody reads them any more.

A fresh array of a few megabytes costs a page fault every 4 KiB, more than the arithmetic done on it; and what is on its
way out must not be written to. So arrays rotate: `take` one, `give` it back, and `hold` it for as long as a reader says
it is busy.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Buffers", "address", "aligned"]

Array = npt.NDArray[np.float32]


_ALIGNMENT = 64  # bytes: a line of the cache, and the widest vector register


def address(array: Array) -> int:
    """Where an array begins in memory. `array.ctypes` would make an object for each question."""
    place: int = array.__array_interface__["data"][0]
    return place


def aligned(size: int) -> Array:
    """A vector of zeros that starts on a 64-byte boundary."""
    room = np.zeros(size + _ALIGNMENT // 4, np.float32)
    start = -address(room) % _ALIGNMENT // 4
    return room[start : start + size]


class Buffers:
    """A pool of float32 arrays of `size` elements.

    Invariant: `take` never returns an array that was not given back, nor one that a holder still reads.

    slots  arrays to begin with, in memory of their own; where none of them is free others are made, for one turn. Where
           there are no slots arrays are made as they are needed, and kept
    made   so far
    """

    def __init__(self, size: int, slots: Sequence[Array] = ()) -> None:
        self.size = size
        self.made = 0
        self._free: list[Array] = list(reversed(slots))
        self._slots = {address(slot) for slot in slots}
        self._readers: dict[int, list[Callable[[], bool]]] = {}

    def take(self) -> Array:
        """An array of undefined contents."""
        # The one given back last is the likeliest to be in a cache still.
        for position in reversed(range(len(self._free))):
            if self._is_idle(self._free[position]):
                return self._free.pop(position)
        self.made += 1
        return aligned(self.size)

    def give(self, array: Array) -> None:
        """Return what was taken. It may still be held."""
        if self.keeps(array):
            self._free.append(array)
        else:
            # Whoever still reads it has a hold on the memory.
            self._readers.pop(address(array), None)

    def keeps(self, array: Array) -> bool:
        """Whether `array`, which was taken, will be taken again."""
        return not self._slots or address(array) in self._slots

    def hold(self, array: Array, is_done: Callable[[], bool]) -> None:
        """Keep `array` from being taken until `is_done()`."""
        readers = self._readers.setdefault(address(array), [])
        readers[:] = [reader for reader in readers if not reader()]
        readers.append(is_done)

    def let_go(self) -> None:
        """Forget the readers that are done: what they refer to need not wait for the array's next turn."""
        for place, readers in list(self._readers.items()):
            readers[:] = [reader for reader in readers if not reader()]
            if not readers:
                del self._readers[place]

    def _is_idle(self, array: Array) -> bool:
        readers = self._readers.get(address(array))
        if readers is None:
            return True
        readers[:] = [reader for reader in readers if not reader()]
        if not readers:
            del self._readers[address(array)]
        return not readers
