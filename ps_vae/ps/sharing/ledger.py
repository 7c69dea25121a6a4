"""A page that both sides of a sharing count in: how often each slot that was lent has been returned.

Whoever lends a slot counts the lendings by itself; the borrower counts what it has returned here, where the lender
looks when it wants to write to the slot again. A borrower that counts wrongly spoils what it reads itself, or leaves
the lender with a slot less; it cannot do more.
"""

import fcntl
import mmap
import os

from ps_vae.ps.sharing.segment import check_sealed

__all__ = ["MAX_SLOTS", "Ledger"]

MAX_SLOTS = 64
_BYTES = 2 * MAX_SLOTS * 8
_MASK = (1 << 64) - 1


class Ledger:
    """Counters of two sides, 0 and 1; each side writes only its own."""

    def __init__(self, descriptor: int) -> None:
        """Map the page behind a descriptor, of which no hold is taken. Raises PeerError where it is no such page."""
        check_sealed(descriptor, _BYTES)
        self._counters = memoryview(mmap.mmap(descriptor, _BYTES)).cast("Q")

    @staticmethod
    def create() -> int:
        """The descriptor of a new page; for the caller to close."""
        descriptor = os.memfd_create("ps-vae-ledger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, _BYTES)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return descriptor

    def count(self, side: int, slot: int) -> None:
        """`side` has returned `slot` once more."""
        place = side * MAX_SLOTS + slot
        self._counters[place] = (self._counters[place] + 1) & _MASK

    def counted(self, side: int, slot: int) -> int:
        """How often `side` has returned `slot`."""
        return self._counters[side * MAX_SLOTS + slot]
