"""An update on two cores at once, each with half of the slice.

In a synchronous run every worker waits while a step is applied, so where workers share the machine with the server
their cores are idle just then; and one core alone cannot fetch weights, gradients and moments as fast as the memory
gives them. Rules work element by element: the bits do not depend on where a slice is cut.
"""

import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps_vae.ps.update import Moment, Update

__all__ = ["spread"]

Vector = npt.NDArray[np.float32]

_processor: Callable[[], int] = ctypes.CDLL(None).sched_getcpu


def spread(update: Update, worth_it: int) -> Update:
    """`update`, on two threads where a slice has at least `worth_it` elements."""
    second = _Second()

    def spread_update(
        weights: Vector, parts: tuple[Vector, ...], state: dict[str, Vector], moment: Moment, out: Vector
    ) -> None:
        if out.size < worth_it:
            update(weights, parts, state, moment, out)
            return
        # On a line of the cache, so that no two cores write to one.
        middle = out.size // 2 // 16 * 16

        def half(piece: slice) -> None:
            arrays = {name: array[piece] for name, array in state.items()}
            update(weights[piece], tuple(part[piece] for part in parts), arrays, moment, out[piece])

        second.begin(lambda: half(slice(middle, None)))
        try:
            half(slice(0, middle))
        finally:
            second.wait()

    return spread_update


class _Mail:
    """What the two threads have in common."""

    def __init__(self) -> None:
        self.job: Callable[[], None] | None = None
        self.error: BaseException | None = None
        self.is_over = False
        self.go, self.done = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.done.acquire()

    def end(self) -> None:
        self.is_over = True
        self.go.release()

    def run(self) -> None:
        while True:
            self.go.acquire()
            if self.is_over:
                return
            try:
                if self.job is not None:
                    self.job()
            except BaseException as error:
                self.error = error
            self.job = None
            self.done.release()


class _Second:
    """A thread that is there: to start one, or to hand a job to a pool, takes as long as a small job. It ends when
    nobody has this object any more.

    It keeps away from the processor that hands it the job. The scheduler would often wake it up there, since the worker
    that sent the last gradient is still busy going to sleep on the other one; then both halves run one after the other.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._mail = _Mail()
        self._processors = os.sched_getaffinity(0)
        self._avoided = -1

    def begin(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            # It holds on to the mail alone.
            self._thread = threading.Thread(target=self._mail.run, name="update", daemon=True)
            self._thread.start()
            weakref.finalize(self, self._mail.end)
        self._keep_away(_processor())
        self._mail.job = job
        self._mail.go.release()

    def wait(self) -> None:
        """Until the job is done. Raises what it has raised."""
        self._mail.done.acquire()
        error, self._mail.error = self._mail.error, None
        if error is not None:
            raise error

    def _keep_away(self, processor: int) -> None:
        others = self._processors - {processor}
        if processor != self._avoided and others and self._thread is not None and self._thread.native_id is not None:
            self._avoided = processor
            # The processors that we may use can have become others meanwhile; this is a hint.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._thread.native_id, others)
