"""Files of results, written whole or not at all. What has to survive a power failure is written otherwise."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ps_vae.errors import PsVaeError

__all__ = ["whole"]

_ANYBODY = 0o666  # less what the process's umask takes away


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` at the end, if it comes to that.

    A file that was there keeps its mode, and a link leads where it led. Raises PsVaeError where the disk refuses;
    `path` then holds what it held before.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".ps-vae-{secrets.token_hex(8)}")
    try:
        # A rename would not mind.
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _ANYBODY))
        try:
            yield partial
            if target.exists():
                os.chmod(partial, stat.S_IMODE(target.stat().st_mode))
            os.replace(partial, target)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        # The temporary name is nobody's concern.
        raise PsVaeError(
            f"{path}: cannot be written ({error.strerror or error}), and is as it was; make room on its disk, see to "
            "the permissions of its folder, or give another name"
        ) from None
