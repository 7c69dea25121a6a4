"""A first server in a process of its own: its command line, and how it is started again when a signal has killed it."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ps_vae.train.plan import DEFAULTS, Wishes
from ps_vae.train.processes import StopSignal, spawn, stop_all
from ps_vae.train.run_folder import RunFolder, free_name
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.supervisor import Slot

__all__ = ["ServerProcess", "flags", "folder_for", "supervise_server"]

_POLL_SECONDS = 0.05
# A run stands still meanwhile.
_PAUSE_SECONDS = 0.1


def folder_for(wishes: Wishes, options: ServerOptions) -> Path:
    """The run's folder: as it was said, or the next free name."""
    return options.run_dir or free_name(Path("runs"), wishes.data or DEFAULTS.data or "run")


def flags(wishes: Wishes) -> list[str]:
    """The command line's words for what was said."""
    words: list[str] = []
    for name, value in wishes.said().items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            words += [f"--{flag}", ",".join(map(str, value)) or "none"]
        else:
            words += [f"--{flag}", str(value)]
    return words


class ServerProcess(Slot):
    """The place of a first server, whatever process fills it: one that a signal killed is continued by another.

    options  with `run_dir`
    log      file that takes its output; without one it goes where ours goes
    more     words that a new run is begun with as well as continued
    """

    def __init__(self, wishes: Wishes, options: ServerOptions, *, log: Path | None = None, more: list[str]) -> None:
        self._wishes, self._options, self._log, self._more = wishes, options, log, more
        self._had_begun = self._has_begun
        super().__init__(self._spawn, None, "server", _PAUSE_SECONDS)

    @property
    def _has_begun(self) -> bool:
        return self._options.run_dir is not None and RunFolder(self._options.run_dir).has_begun

    def _spawn(self) -> subprocess.Popen[bytes]:
        options, wishes, more = self._options, self._wishes, self._more
        if self.has_crashed and self._has_begun and (options.resume or not self._had_begun):
            # It may have been killed when the run was over and that was noted.
            more = [*more, "--begin-or-resume"]
        if self.has_crashed and self._has_begun and not self._had_begun:
            # It has begun here, and says itself what it is.
            options, wishes = replace(options, resume=True, communication="manual"), Wishes()
        # Where the first start found a run its words hold again: nobody knows whether they had been written down.
        return spawn(["server", *_words(options), *more, *flags(wishes)], log=self._log)


def supervise_server(
    wishes: Wishes, options: ServerOptions, *, more: list[str], say: Callable[[str], None], should_stop: StopSignal
) -> int:
    """Run a first server until it ends by itself; signals are passed on. Returns its exit code."""
    place = ServerProcess(wishes, replace(options, run_dir=folder_for(wishes, options)), more=more)
    passed_on = 0
    try:
        while place.code is None:
            place.watch(say)
            if should_stop.count > passed_on:
                passed_on += 1
                place.stop()
            time.sleep(_POLL_SECONDS)
    finally:
        stop_all([place.child])
    return place.code


def _words(options: ServerOptions) -> list[str]:
    return [
        *("--listen", options.listen, "--run-dir", str(options.run_dir)),
        *("--shards", str(options.shards), "--remote-shards", str(options.remote_shards)),
        *("--replicas", str(options.replicas), "--keep", str(options.keep)),
        *("--transport", options.transport, "--await-workers", str(options.await_workers)),
        *("--communication", options.communication, "--backup-workers", str(options.backup_workers)),
        *(["--metrics-port", options.metrics] if options.metrics is not None else []),
        *(["--insecure"] if options.keys is None else ["--keys", str(options.keys)]),
        *(["--resume"] if options.resume else []),
        *(["--reproducible"] if options.reproducible else []),
    ]
