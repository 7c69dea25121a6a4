"""A whole run on this machine: server, workers and evaluator, each a process of its own."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ps_vae.errors import PsVaeError, RefusedError, Unreachable, UsageError
from ps_vae.jit import COMPILING
from ps_vae.lines import WARNING, Line
from ps_vae.ps.addresses import connectable
from ps_vae.ps.observer import Observer
from ps_vae.ps.sockets import check_address
from ps_vae.ps.transport import check_transport
from ps_vae.train.advice import idle_workers
from ps_vae.train.choice import CHOICE
from ps_vae.train.key_folder import KeyFolder, check_open
from ps_vae.train.plan import Wishes
from ps_vae.train.processes import spawn, stop_all
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.server_process import ServerProcess, folder_for

__all__ = ["LocalCluster"]

_ASK_SECONDS = 0.5
# For all members together.
_LAST_SECONDS = 3.0
_LOG_LINES = 5
# How lines begin that whoever watches should read; those that tell of members do not, and `status` has these.
_WARNING = "WARNING: "


class LocalCluster:
    """A context manager: the processes run between `with` and its end, which leaves none behind.

    options.listen  an address with a port, or "" for a socket in a private folder
    address         where clients reach the server

    Raises UsageError or PsVaeError, from `poll`, with the server's own words where it cannot start.
    """

    def __init__(self, wishes: Wishes, options: ServerOptions, workers: int, *, say: Callable[[str], None]) -> None:
        check_transport(options.transport)
        if workers < 1:
            raise UsageError(f"--workers {workers}: a run needs at least one")
        if options.await_workers > workers and not options.listen:
            raise UsageError(f"--await-workers {options.await_workers}: with --workers {workers} they never come")
        if options.resume and options.run_dir is None:
            raise UsageError("--resume needs --run-dir, the folder of the run to continue")
        if options.listen:
            # Before any process runs: what a server can listen on need not be what clients can connect to.
            check_address(connectable(options.listen))
            check_open(options.listen, options.keys, is_insecure=options.insecure)
        self.run_dir = folder_for(wishes, options)
        self._private = Path(tempfile.mkdtemp(prefix="ps-vae-"))
        self._listen = options.listen or f"ipc://{self._private}/server"
        self.address = connectable(self._listen)
        self._wishes, self._options, self._workers, self._say = wishes, options, workers, say
        # What is chosen for some of the workers need not be right for all of them.
        self._awaited = max(options.await_workers, workers if options.communication == "auto" else 1)
        self._stops = 0
        self._told: set[str] = set()
        # Bytes of the server's log.
        self._heard = 0
        self._is_counted = False
        # Before any process runs, too: whether there are keys.
        self._keys = None if options.keys is None else KeyFolder(options.keys).client_keys()
        self._server: ServerProcess | None = None
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._observer: Observer | None = None

    def __enter__(self) -> "LocalCluster":
        options = replace(self._options, listen=self._listen, run_dir=self.run_dir, await_workers=self._awaited)
        self._server = ServerProcess(self._wishes, options, log=self._log("server"), more=[])
        transport = ["--transport", options.transport, *self._key_words()]
        worker = ["worker", "--server", self.address, "--processes", str(self._workers), *transport]
        self._children["workers"] = spawn(worker, log=self._log("workers"))
        self._children["evaluator"] = spawn(
            ["evaluator", "--server", self.address, *transport], log=self._log("evaluator")
        )
        self._observer = Observer(self.address, self._keys)
        return self

    def __exit__(self, *error: object) -> None:
        if self._observer is not None:
            self._observer.close()
        # Members of a run that was stopped may still be starting, and would wait for the server: they are told as well.
        if error[0] is None and self.is_done and not self._stops:
            self._wait_for_members()
        stop_all(self._processes)
        if self._has_begun:
            self._keep_logs()
        shutil.rmtree(self._private, ignore_errors=True)

    @property
    def is_done(self) -> bool:
        """Whether the server has ended."""
        return self._server is None or self._server.code is not None

    def poll(self) -> dict[str, Any] | None:
        """The run's state, None while there is none. Raises PsVaeError where a process ended that should not have."""
        self._check()
        if self.is_done or self._observer is None:
            return None
        try:
            state = self._observer.ask(_ASK_SECONDS)
        except (Unreachable, RefusedError):
            state = None
        if state is None or not state["version"]:
            self._tell_of(COMPILING)
        if self._options.communication == "auto":
            self._tell_of(CHOICE)
        self._tell_of_idle_workers()
        return state

    def stop(self) -> None:
        """The first time: finish the open steps, checkpoint, end. Afterwards: end at once."""
        self._stops += 1
        if self._server is not None:
            self._server.stop()
        if not self._has_begun:
            # What they would only begin with takes the processors from who is to end.
            for child in self._children.values():
                child.terminate()
        if self._stops > 2:
            stop_all(self._processes, grace=0.0)

    def result(self) -> dict[str, Any]:
        """How the run ended."""
        self._check()
        result = RunFolder(self.run_dir).result()
        if result is None:
            raise PsVaeError(f"the server ended without a result; {self._last_words('server')}")
        return result

    @property
    def _has_begun(self) -> bool:
        """Whether the server is there for workers."""
        return "listening on" in self._log("server").read_text(errors="replace")

    @property
    def _processes(self) -> list[subprocess.Popen[bytes]]:
        server = [] if self._server is None else [self._server.child]
        return [*server, *self._children.values()]

    def _key_words(self) -> list[str]:
        return ["--insecure"] if self._options.keys is None else ["--keys", str(self._options.keys)]

    def _check(self) -> None:
        if self._server is not None:
            self._server.watch(self._say)
            self._pass_on_warnings()
        code = None if self._server is None else self._server.code
        if code == 2:
            raise UsageError(self._last_words("server"))
        if code:
            raise PsVaeError(self._last_words("server"))
        workers = self._children["workers"].poll()
        if workers and code is None and not self._stops:
            raise PsVaeError(f"the workers ended: {self._last_words('workers')}")

    def _tell_of(self, beginning: str) -> None:
        """Pass on, once, the first line of a member's that begins so: until then it would be silence to wait in."""
        if beginning in self._told:
            return
        told = [
            line for name in ("server", *self._children) for line in self._lines(name) if line.startswith(beginning)
        ]
        if told:
            self._told.add(beginning)
            self._say(told[0])

    def _pass_on_warnings(self) -> None:
        """What the server has warned of since the last time. Of one that repeats it says itself how often it came."""
        with self._log("server").open("rb") as file:
            file.seek(self._heard)
            # A line that is still being written is read the next time.
            whole, end, _ = file.read().rpartition(b"\n")
        self._heard += len(whole + end)
        for line in whole.decode(errors="replace").splitlines():
            # A server that is started again warns of what it finds as the one before did.
            if line.startswith(_WARNING) and line not in self._told:
                self._told.add(line)
                self._say(line)

    def _tell_of_idle_workers(self) -> None:
        if not self._is_counted and self._has_begun:
            self._is_counted = True
            if (idle := idle_workers(RunFolder(self.run_dir).config(), self._workers)) is not None:
                self._say(idle)

    def _last_words(self, name: str) -> str:
        lines = self._lines(name)
        told = [line.removeprefix("ps-vae: ") for line in lines if line.startswith("ps-vae: ")]
        return told[-1] if told else " / ".join(lines[-_LOG_LINES:]) or f"the {name} said nothing"

    def _wait_for_members(self) -> None:
        deadline = time.monotonic() + _LAST_SECONDS
        for child in self._processes:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._say(f"process {child.pid} does not end by itself; it is stopped")

    def _lines(self, name: str) -> list[str]:
        """What a process has said."""
        return [line for line in self._log(name).read_text(errors="replace").splitlines() if line.strip()]

    def _log(self, name: str) -> Path:
        return self._private / f"{name}.log"

    def _keep_logs(self) -> None:
        logs = self.run_dir / "logs"
        try:
            logs.mkdir(exist_ok=True)
            for path in self._private.glob("*.log"):
                with (logs / path.name).open("a") as file:
                    file.write(path.read_text(errors="replace"))
        except OSError as error:
            text = "WARNING: the logs could not be kept in {path}: {why}"
            self._say(Line("logs-not-kept", text, level=WARNING, path=str(logs), why=error.strerror))
