"""Programs of ps_vae that are started as a user does, found again by their environment, and never left behind.

Children of a program have sessions of their own, and survive it where it is killed. But all that it started have its
environment, and in that a TMPDIR that nobody else has: by it /proc tells who they are.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from programs import environment

from ps_vae.errors import RefusedError, Unreachable
from ps_vae.ps.observer import Observer
from ps_vae.ps.security.keys import ClientKeys

__all__ = ["Cluster", "Program", "Stuck", "observing"]

_POLL_SECONDS = 0.005
_ASK_SECONDS = 0.2
_LONGEST_TAIL = 2000


class Stuck(Exception):  # noqa: N818 (it is what was found, and no fault of the experiment)
    """What had to happen did not, in the time that it had."""


@dataclass(frozen=True, slots=True)
class Program:
    """One that was started, and the file that it and its children say everything to."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """What was said with --log-format json; other lines, and one that is still being written, are left out."""
        found = []
        for line in self.text.splitlines():
            with contextlib.suppress(ValueError):
                plain = json.loads(line)
                if isinstance(plain, dict) and "event" in plain:
                    found.append(plain)
        return found

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.process.poll()


class Cluster:
    """A context manager: a folder, and the programs that run in it.

    folder  their working directory; TMPDIR is `tmp` in it
    """

    def __init__(self) -> None:
        self._owned = tempfile.TemporaryDirectory(prefix="chaos-")
        self.folder = Path(self._owned.name)
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        self.programs: list[Program] = []
        self._mark = f"TMPDIR={self.temporary}".encode()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # What is killed may have started another one just before.
        while alive := self.alive():
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for program in self.programs:
                program.process.poll()
        for program in self.programs:
            program.process.wait()
        self._owned.cleanup()

    def start(self, *words: str, prefix: Sequence[str] = ()) -> Program:
        """`ps-vae WORDS`, in a session of its own, as from a terminal of its own.

        prefix  a command that starts it somewhere else, and becomes it: `ip netns exec NAME`, `taskset -c 1`
        """
        log = self.folder / f"log-{len(self.programs)}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "ps_vae", *words],
                env=environment() | {"TMPDIR": str(self.temporary)},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.programs.append(Program(process, log))
        return self.programs[-1]

    def alive(self) -> dict[int, list[str]]:
        """Every process of these programs that has not ended, with its command line."""
        return dict(_with_environment(self._mark))

    def until(self, condition: Callable[[], Any], what: str, seconds: float) -> None:
        """Raises Stuck, with the last words of all programs, where `condition()` does not come true."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Stuck(f"not within {seconds:g} s: {what}\n{self.last_words()}")
            time.sleep(_POLL_SECONDS)

    def last_words(self) -> str:
        return "\n".join(f"{program.log.name}: {program.text[-_LONGEST_TAIL:]}" for program in self.programs)


@contextlib.contextmanager
def observing(address: str, keys: ClientKeys | None = None) -> Iterator[Callable[[], dict[str, Any] | None]]:
    """What `ps-vae status --json` shows, again and again; None where nobody answers just now."""
    observer = Observer(address, keys)

    def ask() -> dict[str, Any] | None:
        try:
            return observer.ask(_ASK_SECONDS)
        except (Unreachable, RefusedError):
            return None

    try:
        yield ask
    finally:
        observer.close()


def _with_environment(mark: bytes) -> Iterator[tuple[int, list[str]]]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            # It may end while we look at it, or belong to somebody else.
            with contextlib.suppress(OSError):
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    words: Sequence[bytes] = (path / "cmdline").read_bytes().split(b"\0")
                    yield int(path.name), [word.decode(errors="replace") for word in words[:-1]]
