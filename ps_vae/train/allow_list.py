"""The public keys that a server lets in, as a folder says: read again whenever it changes."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ps_vae.errors import UsageError
from ps_vae.ps.security.keys import is_key

__all__ = ["AllowList", "read_public"]

# Strangers in any number do not make it look more often.
_LOOK_SECONDS = 0.2

Signature = frozenset[tuple[str, int, int, int]]


class AllowList:
    """The folder's keys by their text. Any thread may ask.

    A folder that is not there holds none. Where it cannot be read for now, what it held last counts, and `say` is told;
    the same where a file in it is no key, which lets in nobody.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._seen: Signature | None = None
        self._looked_at = float("-inf")
        self._problem = ""

    def name_of(self, public: str) -> str | None:
        """The name under which the key is allowed; None where it is not."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= _LOOK_SECONDS:
                self._looked_at = now
                self._look()
            return self._names.get(public)

    def _look(self) -> None:
        try:
            seen = _signature(self._folder)
            if seen != self._seen:
                self._read(seen)
        except OSError as error:
            self._tell(f"{error.filename}: {error.strerror}; the keys that were allowed before still are")

    def _read(self, seen: Signature) -> None:
        names: dict[str, str] = {}
        problem = ""
        for file in sorted(name for name, *_ in seen):
            path = self._folder / file
            try:
                names.setdefault(read_public(path), path.stem)
            except UsageError as error:
                problem = str(error)
        self._names, self._seen = names, seen
        self._tell(problem)

    def _tell(self, problem: str) -> None:
        if problem not in ("", self._problem):
            self._say(f"WARNING: {problem}")
        self._problem = problem


def read_public(path: Path) -> str:
    """The public key in a file. Raises UsageError where there is none."""
    try:
        with path.open() as file:
            text = file.read(256).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text"
        raise UsageError(f"{path}: {why}; it should be a public key that `ps-vae keys new` has made") from None
    if not is_key(text):
        raise UsageError(f"{path} is no public key of 40 characters; copy it again from where it was made")
    return text


def _signature(folder: Path) -> Signature:
    """Changes with what the folder holds."""
    seen = set()
    # No folder, no keys; and who was taken away since it was listed is gone.
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".public") and not entry.name.startswith("."):
                with suppress(FileNotFoundError):
                    about = entry.stat()
                    seen.add((entry.name, about.st_mtime_ns, about.st_size, about.st_ino))
    return frozenset(seen)
