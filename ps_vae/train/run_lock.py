"""One server to a run's folder: two would write over each other's checkpoints.

The lock is the kernel's (flock), on a file `server.lock` that names its holder. A process that ends lets go of it,
however it ends. The file is removed at the end; where that was not possible it does not matter.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from ps_vae.errors import UsageError
from ps_vae.lines import WARNING, Line
from ps_vae.train.durable import named

__all__ = ["LOCK", "hold"]

LOCK = "server.lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_LONGEST_NAME = 256


@contextlib.contextmanager
def hold(folder: Path, *, say: Callable[[str], None]) -> Iterator[None]:
    """While it is entered, nobody else holds `folder`.

    Raises UsageError, which names the holder, where somebody does, and OSError, which names the file, where the disk
    refuses. Where the file system knows no locks a warning is said, and that is all.
    """
    path = folder / LOCK
    with named(path):
        descriptor = _acquire(path, say)
    try:
        with named(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        # Before it is let go of: afterwards it may be somebody else's.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, say: Callable[[str], None]) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor, path, say)
            if _is_the_file(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Its holder has ended meanwhile, and has removed it.
        os.close(descriptor)


def _lock(descriptor: int, path: Path, say: Callable[[str], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, _LONGEST_NAME, 0).decode(errors="replace").strip() or "another process"
        text = f"{path.parent} is in use: {holder} serves this run; stop it, or give another --run-dir"
        raise UsageError(text) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        text = "WARNING: {path} cannot be locked ({why}); see to it that no other server uses the folder"
        say(Line("not-locked", text, level=WARNING, path=str(path), why=error.strerror))


def _is_the_file(path: Path, descriptor: int) -> bool:
    """Whether what was opened still has the name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
