"""Two processes of one host that lend each other arrays.

Each side owns a segment, or none, and maps the other's. A message names an array by its place in the sender's segment,
and the receiver reads it where it is. It counts as returned when the receiver's last view of it is gone; until then the
owner does not write to the slot. Messages that carry no tensor themselves travel over the stream between the two, which
takes fewer threads and wake-ups than ZeroMQ does. The stream also says when the other process has ended: what it had
borrowed is returned then.
"""

import contextlib
import functools
import socket
import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PeerError
from ps_vae.ps.sharing.ledger import MAX_SLOTS, Ledger
from ps_vae.ps.sharing.segment import Segment

__all__ = ["Reference", "Sharing"]

Array = npt.NDArray[np.float32]

Reference = tuple[int, int, int, int]
"""Number of the sharing; slot, first element and number of elements of an array in the sender's segment."""


class Sharing:
    """One side of it.

    number  by which both sides know it
    side    0 or 1: which of the ledger's counters are ours
    stream  connected to the other side; it ends when the other side does
    mine    the segment that arrays are lent from, if any
    theirs  the other side's, if it has one

    It lives, and its stream with it, for as long as somebody holds it, an array that was borrowed is in use, or one
    that was lent is not back.
    """

    def __init__(
        self,
        number: int,
        side: int,
        stream: socket.socket,
        mine: Segment | None,
        theirs: Segment | None,
        ledger: Ledger,
    ) -> None:
        self.number = number
        self._side = side
        self._stream = stream
        self._stream.setblocking(False)
        self._mine, self._theirs = mine, theirs
        self._ledger = ledger
        self._lent = [0] * MAX_SLOTS
        self._is_over = False
        self._has_ended = False

    def fileno(self) -> int:
        """Of the stream, to be polled."""
        return self._stream.fileno()

    def lend(self, array: Array) -> Reference | None:
        """What to send instead of `array`; None where the array itself has to be sent."""
        if self._mine is None or self._is_over or self._has_ended:
            return None
        place = self._mine.place(array)
        if place is None:
            return None
        slot, start = place
        self._lent[slot] += 1
        return self.number, slot, start, array.size

    def reader(self, reference: Reference) -> functools.partial[bool]:
        """Whether the slot of what was lent is back, as a callable for `Buffers.hold`."""
        return functools.partial(self._is_back, reference[1])

    def borrow(self, reference: Reference) -> Array:
        """The array in the other side's segment. Raises PeerError where the reference leads out of it."""
        number, slot, start, size = reference
        theirs = self._theirs
        if theirs is None or number != self.number:
            raise PeerError("not-shared", f"an array in memory of sharing {number:#x}, which is over")
        if slot >= theirs.slots or start + size > theirs.size:
            text = f"elements {start} to {start + size} of slot {slot}: there are {theirs.slots} of {theirs.size}"
            raise PeerError("not-shared", text)
        array = theirs.array(slot, start, size)
        # Views of an array keep it alive, so that its own end is the last reader's.
        weakref.finalize(array, self._give_back, slot).atexit = False
        return array

    def send(self, frame: bytes, lent: Sequence[Reference] = ()) -> bool:
        """Send a message that refers to what was `lent`. False where the other side is gone.

        Where it is there and does not read, the message is lost, as it would be on a connection that breaks.
        """
        if self._has_ended:
            return False
        try:
            self._stream.send(frame)
        except BlockingIOError:
            for _, slot, _, _ in lent:
                self._lent[slot] -= 1
        except OSError:
            self._is_over = True
        return not self._is_over

    def receive(self, limit: int) -> bytes | None:
        """The next message, cut off after `limit` bytes; None where there is none, empty where it is over."""
        try:
            frame = self._take(limit)
        except BlockingIOError:
            return None
        except OSError:
            frame = b""
        self._is_over = not frame
        return frame

    def _take(self, limit: int) -> bytes:
        try:
            return self._stream.recv(limit)
        except ConnectionResetError:
            # It ended with something of ours unread. That is told once, before what it had said itself.
            return self._stream.recv(limit)

    def end(self) -> None:
        """Nothing more is said or lent, and the other side is told; what it has borrowed it may use to the end."""
        self._has_ended = True
        with contextlib.suppress(OSError):
            # Our own reading goes on: the end of the stream is the end of what was lent.
            self._stream.shutdown(socket.SHUT_WR)

    @property
    def is_over(self) -> bool:
        """Whether the other process has closed its side or ended."""
        if not self._is_over:
            try:
                self._is_over = self._stream.recv(1, socket.MSG_PEEK) == b""
            except BlockingIOError:
                pass
            except OSError:
                self._is_over = True
        return self._is_over

    def _is_back(self, slot: int) -> bool:
        return self._ledger.counted(1 - self._side, slot) == self._lent[slot] or self.is_over

    def _give_back(self, slot: int) -> None:
        self._ledger.count(self._side, slot)
