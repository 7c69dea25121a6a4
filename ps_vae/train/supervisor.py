"""The small parent of a node's workers: it starts them, starts crashed ones again, and stops with them."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence

from ps_vae.lines import WARNING, Line
from ps_vae.train.processes import StopSignal, spawn, stop_all

__all__ = ["Slot", "cores_for", "supervise"]

_POLL_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
# A worker that lived this long starts with a clean record.
_STABLE_SECONDS = 60.0


def supervise(arguments: Sequence[str], processes: int, *, say: Callable[[str], None], should_stop: StopSignal) -> int:
    """Run `processes` times `ps-vae ARGUMENTS` until all have ended or `should_stop`.

    A process that a signal killed is started again, after a pause that doubles each time; one that ended by itself is
    not: it has said why. Where there are as many as cores, each has a core for itself. Returns the exit code for this
    process: the highest of theirs.
    """
    slots: list[Slot] = []
    try:
        for core in cores_for(processes):
            slots.append(Slot(lambda: spawn(arguments), core))
        while any(slot.code is None for slot in slots) and not should_stop():
            for slot in slots:
                slot.watch(say)
            time.sleep(_POLL_SECONDS)
    finally:
        stop_all([slot.child for slot in slots])
    return max((slot.code or 0) for slot in slots)


def cores_for(processes: int) -> list[int | None]:
    """The core of each process: one for itself where there are as many as cores, else any."""
    cores: list[int] = sorted(os.sched_getaffinity(0))
    return [*cores] if processes == len(cores) else [None] * processes


class Slot:
    """The place of one process, whatever process fills it: one that a signal killed is followed by another.

    start  starts a process for it
    core   that it runs on and no other: the scheduler, which likes to wake a process up where its message comes from,
           would put two workers on one core and leave another idle
    what   it is, for people
    pause  seconds before another one is started, which double with each that is killed early
    code   its exit code once it has ended for good
    """

    def __init__(
        self,
        start: Callable[[], subprocess.Popen[bytes]],
        core: int | None = None,
        what: str = "worker",
        pause: float | None = None,
    ) -> None:
        self.code: int | None = None
        self.has_crashed = False
        self._start_process = start
        self._core = core
        self._what = what
        self._pause = _FIRST_PAUSE_SECONDS if pause is None else pause
        self._is_stopping = False
        self._crashes = 0
        self._resume_at: float | None = None
        self.child: subprocess.Popen[bytes]
        self._start()

    def watch(self, say: Callable[[str], None]) -> None:
        """See whether the process has ended, and start another where it is time to."""
        now = time.monotonic()
        if self.code is not None:
            return
        if self._resume_at is not None:
            if now >= self._resume_at:
                self._start()
            return
        code = self.child.poll()
        if code is None:
            return
        if code >= 0 or self._is_stopping:
            self.code = code if code >= 0 else 128 - code
            return
        self.has_crashed = True
        self._crashes = 0 if now - self._started > _STABLE_SECONDS else self._crashes
        pause = min(_LONGEST_PAUSE_SECONDS, self._pause * 2**self._crashes)
        self._crashes += 1
        self._resume_at = now + pause
        text = "{what} {pid} was killed by signal {signal}; another is started in {pause:g} s"
        fields = {"what": self._what, "pid": self.child.pid, "signal": -code, "pause": pause}
        say(Line("process-killed", text, level=WARNING, **fields))

    def stop(self) -> None:
        """Ask the process to end; no other follows it."""
        self._is_stopping, self._resume_at = True, None
        self.child.terminate()

    def _start(self) -> None:
        self._resume_at = None
        self._started = time.monotonic()
        self.child = self._start_process()
        if self._core is not None:
            # It may have ended already; `watch` will say so.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self.child.pid, {self._core})
