"""A program on a host: started there, its output kept in files, gone at the end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exchange.nodes import Node

__all__ = ["HostProcess", "wait_for"]

_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05
_LONGEST_REASON = 200


class HostProcess:
    """`python -m COMMAND` on a node, as a context.

    cores      the only ones that it may use; None: any
    variables  its environment
    folder     where its output is kept, under `name`
    """

    def __init__(
        self,
        command: Sequence[str],
        node: Node,
        *,
        name: str,
        folder: Path,
        variables: Mapping[str, str],
        cores: Sequence[int] | None = None,
    ) -> None:
        self.name = name
        self._out, self._log = folder / f"{name}.out", folder / f"{name}.log"
        with self._out.open("wb") as out, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*node.prefix, sys.executable, "-m", *command],
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        if cores is not None:
            # It may have ended already; its code will say so.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self._process.pid, cores)

    def __enter__(self) -> "HostProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def said(self) -> str:
        """What it has written to standard error."""
        return self._log.read_text(errors="replace")

    def terminate(self) -> None:
        """Ask it to end."""
        if self.code is None:
            self._process.terminate()

    def answer(self) -> dict[str, Any]:
        """The JSON object in the last line of its standard output. Raises RuntimeError where there is none."""
        lines = self._out.read_text(errors="replace").splitlines()
        try:
            found = json.loads(lines[-1])
        except (IndexError, ValueError):
            raise self.failure() from None
        if not isinstance(found, dict):
            raise self.failure()
        return found

    def failure(self) -> RuntimeError:
        """That it ended, with its last words."""
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        words = lines[-1].removeprefix("ps-vae: ")[:_LONGEST_REASON] if lines else f"exit code {self.code}"
        return RuntimeError(f"{self.name}: {words}")


def wait_for(
    condition: Callable[[], bool],
    processes: Sequence[HostProcess],
    *,
    patience: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Until `condition()`.

    Raises RuntimeError with its last words where one of the processes ends with another code than 0 before that, or has
    none for so many seconds of silence: all of them, no one has written anything.
    """
    heard, since = -1, clock()
    while not condition():
        for process in processes:
            if process.code:
                raise process.failure()
        volume = sum(len(process.said) for process in processes)
        if volume != heard:
            heard, since = volume, clock()
        elif clock() - since > patience:
            words = "; ".join(str(process.failure()) for process in processes)
            raise RuntimeError(f"nothing was heard for {patience:g} s: {words}")
        pause(_POLL_SECONDS)
