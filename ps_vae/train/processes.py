"""Other processes of ps_vae: how they are started, watched and stopped."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

__all__ = [
    "StopSignal",
    "allow_many_files",
    "die_of_signals",
    "let_others_first",
    "prepare_environment",
    "random_id",
    "spawn",
    "stop_all",
]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 8.0


class StopSignal:
    """Set by SIGINT or SIGTERM; `count` says how often, so that an impatient second one can be told."""

    def __init__(self) -> None:
        self.count = 0

    def listen(self) -> "StopSignal":
        """Take over both signals of this process, also one that has come since `spawn` started it."""
        for number in _SIGNALS:
            signal.signal(number, self._receive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return self

    def __call__(self) -> bool:
        return self.count > 0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def die_of_signals() -> None:
    """Let both signals end this process at once, also one that has come since `spawn` started it: it has nothing to
    finish."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def random_id() -> bytes:
    """16 bytes that nobody else has."""
    return os.urandom(16)


def spawn(
    arguments: Sequence[str], *, log: Path | None = None, descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start `ps-vae ARGUMENTS` in a session of its own, so that a Ctrl-C in the terminal reaches only us.

    SIGINT and SIGTERM wait until it listens: they would kill it while it still imports.

    log          file that takes its output; without one it goes where ours goes
    descriptors  that are open in it too, under the same numbers
    """
    command = [sys.executable, "-m", "ps_vae", *arguments]
    environment = {**os.environ, **_blas_environment()}
    package = str(Path(__file__).resolve().parents[2])
    # Running from a checkout that is not installed, `-m ps_vae` has to be found again.
    environment["PYTHONPATH"] = os.pathsep.join(
        [p for p in sys.path if p == package] + [environment.get("PYTHONPATH", "")]
    )
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(log.open("ab")) if log is not None else None
        # A child inherits what is blocked here.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            pass_fds=descriptors,
        )


def stop_all(children: Sequence[subprocess.Popen[bytes]], grace: float = _GRACE_SECONDS) -> None:
    """SIGTERM to those that run, SIGKILL to those that run on after `grace` seconds."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + grace
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def let_others_first() -> None:
    """Have this process, which computes, wait its turn: a server that it wakes up, or that wakes it, is not held up."""
    if hasattr(os, "SCHED_BATCH"):
        # Some sandboxes know no such thing; then it is a little slower.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def allow_many_files() -> None:
    """Let this process have as many descriptors open as it may: a server has four for each worker beside it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def prepare_environment() -> None:
    """Make what `spawn` gives its children hold for every process that this one starts."""
    os.environ.update(_blas_environment())


def _blas_environment() -> dict[str, str]:
    """One BLAS thread a process, from the moment it is loaded; what the user has set stays."""
    return {} if "OPENBLAS_NUM_THREADS" in os.environ else {"OPENBLAS_NUM_THREADS": "1"}
