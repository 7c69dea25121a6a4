"""The first server's program: it owns the run, its folder and its end."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ps_vae.errors import UsageError
from ps_vae.jit import announce_compilation, start_numba
from ps_vae.ps.addresses import SAME_HOST, connectable, same_host, sibling
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.outbox import Event, Member, Refused, RunEnded, SnapshotTaken, StepApplied, Told
from ps_vae.ps.partition import partition
from ps_vae.ps.server import Endpoint, Server
from ps_vae.ps.state import ShardState
from ps_vae.ps.transport import check_transport
from ps_vae.train.checkpoint_writer import CheckpointWriter, assemble
from ps_vae.train.config import RunConfig
from ps_vae.train.plan import Wishes
from ps_vae.train.processes import StopSignal, allow_many_files, random_id, spawn, stop_all
from ps_vae.train.reports import Reports
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.shard import rules_of, shard_of
from ps_vae.train.start import settle, starting_point
from ps_vae.train.trial import check_communication, with_communication
from ps_vae.train.update import fresh_state
from ps_vae.train.warm_up import warm_up_shard
from ps_vae.vae.layout import ParameterLayout

__all__ = ["ServerOptions", "serve"]

Say = Callable[[str], None]

_SAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where and how the server runs; nothing in here changes what is computed.

    shards         processes started here, this one included
    remote_shards  further ones that are waited for (`start-server --join`)
    keep           checkpoints that stay on the disk
    transport      how tensors travel between processes of this host: one of ps_vae.ps.transport.TRANSPORTS
    await_workers  that have to be ready before the first step begins
    communication  manual: as the run's options say; auto: as a trial finds best
    backup_workers whose work is given to others too while they are slow, in bsp
    """

    listen: str = "tcp://127.0.0.1:5555"
    shards: int = 1
    remote_shards: int = 0
    run_dir: Path | None = None
    resume: bool = False
    reproducible: bool = False
    keep: int = 3
    transport: str = "auto"
    await_workers: int = 1
    communication: str = "manual"
    backup_workers: int = 0


def serve(wishes: Wishes, options: ServerOptions, *, say: Say, should_stop: StopSignal) -> dict[str, Any]:
    """Run a whole run as its first server; returns what `train --json` ends with.

    Raises UsageError, DataError or CheckpointError before anything is written, Unreachable where it cannot listen.
    """
    check_transport(options.transport)
    check_communication(options.communication, wishes, resumes=options.resume)
    if min(options.shards, options.keep, options.await_workers) < 1:
        raise UsageError("--shards, --keep and --await-workers are at least 1")
    if min(options.remote_shards, options.backup_workers) < 0:
        raise UsageError("--remote-shards and --backup-workers are at least 0")
    announce_compilation(say)
    start_numba()
    allow_many_files()
    folder, config, data = settle(wishes, options.run_dir, resumes=options.resume)
    if options.backup_workers and not parse_consistency(config.consistency).is_synchronous:
        raise UsageError(
            f"--backup-workers {options.backup_workers} is for --consistency bsp; in {config.consistency} nobody waits "
            "for a slow worker"
        )
    layout = ParameterLayout(config.model)
    slices = partition(layout.size, options.shards + options.remote_shards)
    state, origin = starting_point(config, data, layout, folder, resumes=options.resume, say=say)
    chooses = options.communication == "auto"
    endpoint = Endpoint(options.listen, 4 * (layout.size if chooses else max(piece.size for piece in slices)))
    try:
        if chooses:
            say(f"reached at {endpoint.address}; {_invitation(endpoint)}")
            config = with_communication(
                config,
                wishes,
                data,
                state.weights,
                endpoint,
                transport=options.transport,
                await_workers=options.await_workers,
                say=say,
                should_stop=should_stop,
            )
            state = fresh_state(config, state.weights)
        if options.resume:
            folder.write_config(config)
            folder.forget_result()
        else:
            folder.create(config)
        say(f"{folder.path}: {data.description}; {layout.size:,} parameters; {origin}; {config.steps:,} steps")
        run = _Run(config, layout, folder, options, endpoint, state, say, should_stop)
    except BaseException:
        endpoint.close()
        raise
    return run.run()


class _Run:
    """A server that serves: the state machines, the folder, the signals."""

    def __init__(
        self,
        config: RunConfig,
        layout: ParameterLayout,
        folder: RunFolder,
        options: ServerOptions,
        endpoint: Endpoint,
        state: ShardState,
        say: Say,
        should_stop: StopSignal,
    ) -> None:
        self._config, self._layout, self._folder = config, layout, folder
        self._say, self._should_stop = say, should_stop
        self._reports = Reports(config, folder)
        if options.resume:
            self._reports.resume(state.version)
        self._writer = CheckpointWriter(folder.checkpoints, layout, options.keep)
        self._said_at = time.monotonic()
        self._failure = ""
        self._unwritten = ""
        self._obeyed = 0
        slices = partition(layout.size, options.shards + options.remote_shards)
        rules = rules_of(config, random_id(), state.version)
        self._coordinator = Coordinator(
            rules,
            slices,
            same_host(endpoint.address),
            config.pack(),
            state,
            self._figures,
            options.reproducible,
            options.await_workers,
            backup_workers=options.backup_workers,
        )
        own = slices[0]
        piece = slice(own.start, own.stop)
        part = ShardState(
            state.version,
            state.weights[piece],
            {name: array[piece].copy() for name, array in state.optimizer.items()},
        )
        self._shard, segment = shard_of(config, rules, 0, own, part, options.transport)
        self._server = Server(
            endpoint, self._shard, coordinator=self._coordinator, segment=segment, notify=self._notice
        )
        here = connectable(endpoint.address)
        self._others: list[subprocess.Popen[bytes]] = [
            spawn(
                [
                    *("server", "--join", here, "--listen", sibling(endpoint.address), "--advertise", SAME_HOST),
                    *("--transport", options.transport),
                ]
            )
            for _ in range(options.shards - 1)
        ]
        say(f"listening on {endpoint.address}; {_invitation(endpoint)}")
        if options.await_workers > 1:
            say(f"the first step begins when {options.await_workers} workers are ready")
        if options.remote_shards:
            say(f"waiting for {options.remote_shards} more shards; start them with: start-server --join ADDRESS")

    def run(self) -> dict[str, Any]:
        try:
            warm_up_shard(self._config)
            ended = self._server.run(self._tick)
        finally:
            self._server.close()
            self._writer.close()
            stop_all(self._others)
        self._reports.flush()
        result = self._result(ended)
        try:
            self._folder.write_result(result)
        except OSError as error:
            self._say(f"WARNING: {self._folder.path}/result.json could not be written: {error.strerror}")
        return result

    def _tick(self) -> None:
        if self._reports.unwritten != self._unwritten:
            self._unwritten = self._reports.unwritten
            self._say(f"WARNING: {self._unwritten or 'metrics.jsonl is written again'}; training goes on")
        for written in self._writer.finished():
            if written.error is not None:
                self._failure = f"checkpoint of version {written.version} could not be written: {written.error}"
                self._say(f"WARNING: {self._failure}; training goes on, free some space")
            else:
                self._failure = ""
                self._say(f"checkpoint {written.path}")
            self._server.dispatch(self._coordinator.finished_writing(written.version, time.monotonic()))
        if self._should_stop.count > self._obeyed:
            self._obeyed = self._should_stop.count
            self._obey()
        for child in self._others:
            if child.poll() is not None and self._server.ended is None:
                reason = f"a shard's process on this host ended with code {child.returncode}; continue with --resume"
                self._server.dispatch(self._coordinator.end(True, reason, time.monotonic()))

    def _obey(self) -> None:
        now = time.monotonic()
        if self._obeyed == 1:
            self._say("stopping: finishing the open steps, then a checkpoint (once more: stop at once)")
            self._server.dispatch(self._coordinator.stop(now))
        elif self._server.ended is None:
            self._server.dispatch(self._coordinator.end(True, "stopped at once, without a last checkpoint", now))

    def _notice(self, event: Event) -> None:
        match event:
            case StepApplied():
                self._reports.step(event)
                self._say_progress()
            case SnapshotTaken():
                self._writer.submit(assemble(self._layout, event.version, event.parts))
            case Told():
                self._reports.told(event)
                figures = ", ".join(f"{name} {value:.3f}" for name, value in event.values)
                self._say(f"version {event.version:,}: validation {figures}")
            case Member():
                self._say(f"{event.name} {event.change}{': ' + event.why if event.why else ''}")
            case Refused():
                self._say(f"refused a message of {event.who}: {event.code}: {event.text}")
            case RunEnded():
                self._say(f"the run ends: {event.reason}")

    def _say_progress(self) -> None:
        now = time.monotonic()
        if now - self._said_at < _SAY_SECONDS or not self._reports.latest:
            return
        self._said_at = now
        latest = self._reports.latest
        pace = self._reports.speed()[2]
        self._say(
            f"step {latest['version']:,} of {self._config.steps:,}: ELBO {latest['elbo']:.3f}, {pace:,.0f} examples/s"
        )

    def _figures(self) -> dict[str, Any]:
        """What the run adds to the coordinator's state."""
        seconds, _, pace = self._reports.speed()
        latest = self._reports.latest
        return {
            "bytes_dense": self._dense_bytes(),
            **{name: latest.get(name) for name in ("elbo", "reconstruction", "kl")},
            "validation": self._reports.validation,
            "examples_per_second": round(pace, 1),
            "seconds": round(seconds, 3),
            "batch_size": self._config.batch_size,
            "duplicates": self._shard.duplicates,
            "run_dir": str(self._folder.path),
        }

    def _dense_bytes(self) -> int:
        """Of tensors, if every batch ended in an exchange of them as they are."""
        return self._config.batches_a_step * sum(shard.dense for shard in self._coordinator.shards)

    def _result(self, ended: RunEnded) -> dict[str, Any]:
        seconds, examples, pace = self._reports.speed()
        state = self._coordinator.state(time.monotonic())
        failed, reason = ended.failed, ended.reason
        if self._failure and not failed:
            failed, reason = True, self._failure
        return {
            "run_dir": str(self._folder.path),
            "steps": self._config.steps,
            "version": state["version"],
            "examples": examples,
            "seconds": round(seconds, 3),
            "examples_per_second": round(pace, 1),
            "bytes_pushed": state["bytes_pushed"],
            "bytes_pulled": state["bytes_pulled"],
            "bytes_shared": state["bytes_shared"],
            "bytes_dense": state["bytes_dense"],
            "time": state["time"],
            "elbo": self._reports.latest.get("elbo"),
            "validation": self._reports.validation,
            "failed": failed,
            "reason": reason,
        }


def _invitation(endpoint: Endpoint) -> str:
    here = endpoint.address.replace("0.0.0.0", "THIS-HOST").replace("[::]", "THIS-HOST")
    return f"start workers with: start-worker --server {here}"
