"""Programs that take turns: orders come on standard input, answers leave on standard output, a line of JSON each.

All systems that are compared run from the start; then one after the other does a few exchanges, round after round, and
waits, idle, until it is its turn again. What slows the machine down slows all of them down.

Standard input ends when the benchmark ends, in whatever way, and then its programs end.
"""

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

__all__ = ["Orders", "Program", "answer", "timed"]

_CHUNK = 1 << 16
_GRACE_SECONDS = 5.0
_SLICE_SECONDS = 0.1
_LONGEST_REASON = 300


class Orders:
    """A program's side of standard input."""

    def __init__(self, descriptor: int = 0) -> None:
        self.have_ended = False
        self._descriptor = descriptor
        self._rest = b""

    def wait(self) -> dict[str, Any] | None:
        """The next order; None when there will be none any more."""
        while not self.have_ended:
            if (order := self._next()) is not None:
                return order
            self._read()
        return None

    def poll(self) -> dict[str, Any] | None:
        """The next order, if it is here."""
        while not self.have_ended and select.select([self._descriptor], [], [], 0.0)[0]:
            self._read()
        return self._next()

    def _next(self) -> dict[str, Any] | None:
        line, newline, rest = self._rest.partition(b"\n")
        if not newline:
            return None
        self._rest = rest
        order: dict[str, Any] = json.loads(line)
        return order

    def _read(self) -> None:
        chunk = os.read(self._descriptor, _CHUNK)
        self._rest += chunk
        self.have_ended = not chunk


def answer(value: Any) -> None:
    """Say it to whoever gave the orders."""
    print(json.dumps(value), flush=True)


def timed(exchange: Callable[[], object], count: int) -> list[int]:
    """Nanoseconds of each of `count` exchanges, after one that does not count: it wakes the other side up."""
    exchange()
    stamps = [time.perf_counter_ns()]
    for _ in range(count):
        exchange()
        stamps.append(time.perf_counter_ns())
    return [end - start for start, end in pairwise(stamps)]


class Program:
    """`python -m COMMAND`, seen from the benchmark; as a context it is gone at the end, with what it has started.

    prefix     a command that starts it somewhere else: `ip netns exec NAME`
    cores      the only ones that it may use; None: all of ours
    variables  its environment
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        variables: Mapping[str, str],
        prefix: Sequence[str] = (),
        cores: Sequence[int] | None = None,
    ) -> None:
        self.command = tuple(command)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._rest = b""
        before = os.sched_getaffinity(0)
        # A child inherits it, from its first instruction on.
        os.sched_setaffinity(0, before if cores is None else cores)
        try:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", *command],
                env=dict(variables),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, before)

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def tell(self, order: Mapping[str, Any]) -> None:
        """Give an order. Raises RuntimeError where the program is gone."""
        try:
            os.write(self._pipes()[0], json.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            raise self._failure("has ended") from None

    def answer(self, timeout: float) -> Any:
        """What it answers next. Raises RuntimeError, with its last words, where that does not come in time."""
        # In slices: where the whole machine stood still for a minute, its clock did not.
        slices = math.ceil(timeout / _SLICE_SECONDS)
        while b"\n" not in self._rest:
            if not select.select([self._pipes()[1]], [], [], _SLICE_SECONDS)[0]:
                slices -= 1
                if slices <= 0:
                    raise self._failure(f"did not answer within {timeout:g} s")
                continue
            chunk = os.read(self._pipes()[1], _CHUNK)
            if not chunk:
                raise self._failure("has ended")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """End its orders, and with them the program; one that runs on is ended."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE_SECONDS)
        # Of its session, which nobody else is in: what it has started, and itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._said.close()

    def _pipes(self) -> tuple[int, int]:
        if self.process.stdin is None or self.process.stdout is None or self.process.stdin.closed:
            raise RuntimeError(f"{' '.join(self.command)[:80]} was closed")
        return self.process.stdin.fileno(), self.process.stdout.fileno()

    def _failure(self, what: str) -> RuntimeError:
        self._said.seek(0)
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        why = lines[-1][:_LONGEST_REASON] if lines else "it said nothing"
        return RuntimeError(f"{' '.join(self.command)[:80]} {what}: {why}")
