"""The one place where Numba's compile options are set, and where processes agree on who compiles.

`exact_kernel`  every operation rounds as IEEE 754 says, in the order written: the result of an element does
                not depend on where in a slice it stands. For everything whose boundaries may move: the update
                rules of a shard, codecs, noise.
`kernel`        may reassociate sums and contract a*b+c. Same shapes give the same bits, other shapes may not. For
                the mathematics between the GEMMs, where a microbatch always has the same shape. NaN and
                infinity are honoured: a diverged run has to be seen.

Both use NumPy's error model: a division that may raise keeps LLVM from vectorising the loop around it
(five times slower for Adam). Both release the GIL and keep their machine code in Numba's cache.

A kernel is compiled when it is first called with some types. Numba's cache is a folder: NUMBA_CACHE_DIR, else
`__pycache__` beside the source file, else, where that cannot be written, one of the user's. Processes that start
together need the same kernels at the same moment, so each compiles or loads a kernel under an advisory lock (flock) on
a file beside its cache: the first compiles, the others load what it saved. The lock of a process that dies is gone with
it. Each kernel has its own, so that different ones are compiled side by side; they are taken in the order in which
kernels call one another, which has no circles.

Numba compiles a kernel again when the kernel's own file has changed. A kernel contains those that it calls, so here it
is compiled again when any file of its folder has, or one of those that every room may import.
"""

import fcntl
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from ps_vae.lines import WARNING, Line

__all__ = ["COMPILING", "announce_compilation", "exact_kernel", "instruction", "kernel", "start_numba"]

COMPILING = "compiling kernels"
"""How the line begins that is said when a process compiles."""

_REMEDY = "set NUMBA_CACHE_DIR to one that can be written"

_REASSOCIATE = {"reassoc", "contract", "nsz"}

# Many times what the slowest kernel takes: whoever holds a lock for longer stands still.
_PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.005

Function = Callable[..., Any]

instruction: Callable[[Function], Function] = intrinsic
"""For kernels, what Numba's language has no words for. What Numba is told of it (typing, arguments' types) is not what
a kernel calls it with: hence no signature."""


def exact_kernel(function: Function) -> Function:
    """Compile `function` with IEEE semantics, element by element."""
    # Without a word about fastmath Numba would give a function the flags of the kernel that calls it first.
    return _compiled(function, False)


def kernel(function: Function) -> Function:
    """Compile `function`; sums may be reassociated so that they vectorise."""
    return _compiled(function, _REASSOCIATE)


def announce_compilation(say: Callable[[str], None]) -> None:
    """From now on `say` is told when this process compiles: once, before the first kernel that is not in the cache."""
    global _announcement
    _announcement = _Announcement(say)


def start_numba() -> None:
    """Do what Numba does once a process before its first kernel: for our own programs, where they wait anyway.

    Where SciPy is installed Numba imports its linear algebra on this occasion, and with it a second BLAS, for a kernel
    that might call `np.dot`. Ours do not, so here it looks as if there were none: 0.08 s instead of 0.23, and 16 MB
    less. A kernel with linear algebra in it cannot be compiled in this process afterwards.
    """
    if "scipy.linalg" in sys.modules:
        _refresh()
        return
    # None in this table is how Python notes that a module is not to be found.
    sys.modules["scipy.linalg"] = None  # type: ignore[assignment]
    try:
        _refresh()
    finally:
        del sys.modules["scipy.linalg"]


def _refresh() -> None:
    cpu_target.target_context.refresh()


class _Announcement(event.Listener):
    """Told by Numba when it compiles, and not when it loads; says each thing once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()

    def on_start(self, compilation: event.Event) -> None:
        if compilation.data["dispatcher"].stats.cache_path is None and not self._said:
            text = f"{COMPILING}, in every process anew: Numba finds no folder for its cache; {_REMEDY}"
            self.tell(Line("compiling", "{text}", level=WARNING, text=text, is_kept=False))
        elif not self._said:
            self.tell(Line("compiling", COMPILING + ", once on this machine: some seconds", is_kept=True))

    def on_end(self, compilation: event.Event) -> None:
        pass

    def tell(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


_announcement = _Announcement(lambda text: None)

# Numba's own lock comes after ours: two threads that take them in different orders would wait for each other.
_one_thread = threading.RLock()


def _compiled(function: Function, fastmath: bool | set[str]) -> Function:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        compiled: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # There is no folder for a cache; the first compilation says so.
        compiled = numba.njit(**options)(function)
    if isinstance(compiled, Dispatcher):
        _watch_the_folder(compiled)
        _share(compiled)
    return compiled


def _watch_the_folder(dispatcher: Any) -> None:
    index = getattr(dispatcher._cache, "_cache_file", None)  # There is none where there is no cache.
    if index is not None:
        folders = {Path(dispatcher.py_func.__code__.co_filename).parent, Path(__file__).parent}
        index._source_stamp = (index._source_stamp, *(_stamp(folder) for folder in sorted(folders)))


@functools.cache
def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Of each source file in a folder its name, size and last change."""
    files = sorted(folder.glob("*.py"))
    return tuple((file.name, about.st_size, about.st_mtime_ns) for file in files for about in [file.stat()])


def _share(dispatcher: Any) -> None:
    """Have `compile`, which Numba calls where a kernel has to be loaded or compiled, do so under the kernel's lock."""
    load_or_compile = dispatcher.compile
    lock = _lock_of(dispatcher)

    def compile_once(signature: Any) -> Any:
        with _one_thread, event.install_listener("numba:compile", _announcement):
            # Half of Numba is imported here: nothing for other processes to wait for.
            _refresh()
            with _alone(lock):
                try:
                    return load_or_compile(signature)
                except OSError as error:
                    # The disk is full, or the folder is gone: by now the kernel is compiled, and nobody else gets it.
                    text = "kernels cannot be kept for the next time: {why}; " + _REMEDY
                    _announcement.tell(Line("kernels-not-kept", text, level=WARNING, why=str(error)))
                    return load_or_compile(signature)

    dispatcher.compile = compile_once


def _lock_of(dispatcher: Any) -> Path | None:
    folder, function = dispatcher.stats.cache_path, dispatcher.py_func
    module = function.__module__.rpartition(".")[2]
    return None if folder is None else Path(folder) / f"{module}.{function.__qualname__}.lock"


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Hold a lock of this machine; where it cannot be had go on without it, which costs a compilation too many."""
    try:
        file = None if path is None else os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        file = None
    try:
        if file is not None:
            _wait_for(file)
        yield
    finally:
        if file is not None:
            os.close(file)


def _wait_for(file: int) -> None:
    patience = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < patience:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL_SECONDS)
        except OSError:
            # A file system without locks.
            return
        else:
            return
