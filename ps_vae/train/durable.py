"""Files that are whole or are not there, whatever happens while they are written.

    write       under a temporary name, NAME.partial
    flush       its contents are on the disk
    rename      it has its name, in one step
    flush       the folder: the name is on the disk, too

Whoever dies on the way leaves what was there before, and perhaps a .partial file, which `remove_partial` removes. This
is the order of Pillai et al. (2014), "All file systems are not created equal".
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["append_line", "is_partial", "make_folder", "named", "remove_partial", "replace_file", "what_to_do"]

_PARTIAL = ".partial"
_ANYBODY = 0o666  # less what the process's umask takes away
_OWNER = 0o600

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or have your quota raised",
    errno.EFBIG: "raise the largest size of a file (ulimit -f)",
}


def what_to_do(error: OSError) -> str:
    """About a disk that takes no more; empty where the error says enough."""
    return _ADVICE.get(error.errno or 0, "")


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Let errors of the system that name no file, as those of a descriptor, name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def replace_file(path: Path, content: bytes, *, is_private: bool = False) -> None:
    """Let `path` hold `content`, and be on the disk.

    is_private  whether its owner alone may read it

    Raises OSError, which names a file, where the disk refuses. `path` then holds what it held before; or already
    `content`, whole, where only the last flush was refused.
    """
    with named(path):
        _replace(path, content, is_private=is_private)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file: all of it, or, where OSError is raised, which names the file, nothing."""
    with named(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _ANYBODY)
        try:
            before = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, f"{line}\n".encode())
            except OSError:
                # The next line would go on where this one broke off.
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, on the disk, where they are not there yet. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    if missing:
        path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _flush_folder(folder.parent)


def is_partial(path: Path) -> bool:
    """Whether it is what a writer leaves that was killed."""
    return path.name.endswith(_PARTIAL)


def remove_partial(folder: Path) -> list[Path]:
    """Remove what a writer that was killed left behind; returns what that was. Nobody may be writing there."""
    found = sorted(folder.glob(f"*{_PARTIAL}"))
    for path in found:
        path.unlink(missing_ok=True)
    return found


def _replace(path: Path, content: bytes, *, is_private: bool) -> None:
    partial = path.with_name(path.name + _PARTIAL)
    try:
        if is_private:
            # What a writer left that was killed has the mode that it was made with.
            partial.unlink(missing_ok=True)
        mode = _OWNER if is_private else _ANYBODY
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            _write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, path)
    except BaseException:
        # What is left is no harm, and the first error is the one to tell.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _write_all(descriptor: int, content: bytes) -> None:
    """The system takes 2 GiB at most at a time, and less where the disk fills up."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with named(folder):
            os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no such thing.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
