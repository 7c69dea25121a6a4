"""Memory that several processes map: a row of slots, arrays of one size each.

A segment has no name. It is an anonymous file (Linux's memfd), handed over as an open descriptor, so nobody can find it
who was not given it, it needs no room in /dev/shm, and the kernel frees it when the last process that maps it ends,
however it ended. Its size is sealed: a peer that maps it cannot be made to read past its end by a truncation. A slot
that was never written to costs address space only.
"""

import contextlib
import fcntl
import mmap
import os
import sys
import weakref
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.buffers import address

__all__ = ["Segment", "check_sealed", "is_possible"]

Array = npt.NDArray[np.float32]

_PAGE = 4096
# The owner alone.
_MODE = 0o600
# From <linux/fcntl.h>, Linux 5.1: whoever maps it from now on cannot write. Python has no name for it.
_F_SEAL_FUTURE_WRITE = 0x10
# From <asm/mman.h>: pages that are never written to need no memory to be promised. Python knows the name from 3.13 on.
_MAP_NORESERVE = 0x4000


def is_possible() -> bool:
    """Whether this platform has all that segments need."""
    return sys.platform == "linux" and hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")


class Segment:
    """`slots` vectors of `size` float32, each starting on a page.

    Made by `create`, which may write to it, or by `open` from a descriptor of somebody else's. Arrays of a segment keep
    its memory mapped for as long as they live.
    """

    def __init__(self, memory: mmap.mmap, descriptor: int | None, slots: int, size: int) -> None:
        self.slots = slots
        self.size = size
        self._memory = memory
        self._descriptor = descriptor
        # Also of a segment that nobody closes: a run that is joined anew makes another.
        self._close = weakref.finalize(self, os.close, descriptor) if descriptor is not None else None
        self._begin = address(np.frombuffer(memory, np.float32))
        self._end = self._begin + slots * _stride(size)

    @classmethod
    def create(cls, slots: int, size: int) -> "Segment":
        """A new segment, zero all over. Raises OSError where the system has no room for it."""
        descriptor = os.memfd_create("ps-vae", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.fchmod(descriptor, _MODE)
            os.ftruncate(descriptor, slots * _stride(size))
            memory = mmap.mmap(descriptor, slots * _stride(size))
            _seal(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(memory, descriptor, slots, size)

    @classmethod
    def open(cls, descriptor: int, slots: int, size: int) -> "Segment":
        """Map somebody else's segment; takes no hold of the descriptor.

        Raises PeerError where it is not sealed, or smaller than `slots` vectors of `size`, or there are none.
        """
        if slots < 1 or size < 1:
            raise PeerError("bad-segment", f"{slots} slots of {size} numbers hold nothing")
        length = slots * _stride(size)
        check_sealed(descriptor, length)
        # A private mapping shows what the owner writes; a write here, which would be a fault, stays here. (Linux; POSIX
        # leaves it open.) Kernels are compiled for arrays that may be written to.
        return cls(mmap.mmap(descriptor, length, flags=mmap.MAP_PRIVATE | _MAP_NORESERVE), None, slots, size)

    def array(self, slot: int, start: int = 0, size: int | None = None) -> Array:
        """`size` elements of a slot from element `start` on; all of it by default."""
        count = self.size - start if size is None else size
        return np.frombuffer(self._memory, np.float32, count, slot * _stride(self.size) + 4 * start)

    def arrays(self) -> list[Array]:
        """Each slot."""
        return [self.array(slot) for slot in range(self.slots)]

    def place(self, array: Array) -> tuple[int, int] | None:
        """The slot that `array`, which is contiguous, lies in, and its first element there; None where it does not."""
        begin = address(array)
        if not self._begin <= begin < self._end:
            return None
        slot, offset = divmod(begin - self._begin, _stride(self.size))
        return slot, offset // 4

    @contextlib.contextmanager
    def readable(self) -> Iterator[int]:
        """A descriptor to hand over, through which nobody can write."""
        descriptor = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Hand it over to nobody any more. The memory goes with its last array."""
        if self._close is not None:
            self._close()
        self._descriptor = None


def check_sealed(descriptor: int, length: int) -> None:
    """PeerError unless the file behind the descriptor has `length` bytes, now and for ever."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    if not seals & fcntl.F_SEAL_SHRINK:
        raise PeerError("bad-segment", "the memory that was handed over could be cut off while it is read")
    has = os.fstat(descriptor).st_size
    if has < length:
        raise PeerError("bad-segment", f"the memory that was handed over has {has} bytes, not {length}")
    # Of hugetlbfs there may be no page left when it is read for the first time, which would end the reader.
    page = os.fstatvfs(descriptor).f_bsize
    if page != mmap.PAGESIZE:
        raise PeerError("bad-segment", f"the memory that was handed over has pages of {page} bytes")


def _seal(descriptor: int) -> None:
    """Nobody can cut it off any more, nor, where the kernel knows how, write to it but through what is mapped now."""
    size = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, size | _F_SEAL_FUTURE_WRITE)
    except OSError:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, size)


def _stride(size: int) -> int:
    """Bytes from one slot to the next; a slot ends where the page ends."""
    return -(-4 * size // _PAGE) * _PAGE
