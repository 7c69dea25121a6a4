"""An update on two cores at once, each with half of the slice.

In a synchronous run every worker waits while a step is applied, so where workers share the machine with the server
their cores are idle just then; and one core alone cannot fetch weights, gradients and moments as fast as the memory
gives them. Rules work element by element: the bits do not depend on where a slice is cut.
"""

import contextlib
import ctypes
import os
import threading
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


class _Second:
    """A thread that is there: to start one, or to hand a job to a pool, takes as long as a small job.

    It keeps away from the processor that hands it the job. The scheduler would often wake it up there, since the worker
    that sent the last gradient is still busy going to sleep on the other one; then both halves run one after the other.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._job: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._processors = os.sched_getaffinity(0)
        self._avoided = -1
        self._go, self._done = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._done.acquire()

    def begin(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="update", daemon=True)
            self._thread.start()
        self._keep_away(_processor())
        self._job = job
        self._go.release()

    def wait(self) -> None:
        """Until the job is done. Raises what it has raised."""
        self._done.acquire()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _keep_away(self, processor: int) -> None:
        others = self._processors - {processor}
        if processor != self._avoided and others and self._thread is not None and self._thread.native_id is not None:
            self._avoided = processor
            # The processors that we may use can have become others meanwhile; this is a hint.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._thread.native_id, others)

    def _run(self) -> None:
        while True:
            self._go.acquire()
            try:
                if self._job is not None:
                    self._job()
            except BaseException as error:
                self._error = error
            self._job = None
            self._done.release()
