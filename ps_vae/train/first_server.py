"""A first server that serves: the state machines, the run's folder, the signals."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ps_vae.lines import WARNING, Line
from ps_vae.ps.addresses import SAME_HOST, connectable, same_host
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.gathering import Found
from ps_vae.ps.outbox import Event, Member, RunEnded, SnapshotTaken, StepApplied, Told
from ps_vae.ps.partition import Slice, partition
from ps_vae.ps.server import Server
from ps_vae.ps.state import ShardState
from ps_vae.train.checkpoint_writer import CheckpointWriter
from ps_vae.train.config import RunConfig
from ps_vae.train.counts import Counts
from ps_vae.train.event_lines import line_of
from ps_vae.train.metrics_server import MetricsServer
from ps_vae.train.own_servers import OwnServers
from ps_vae.train.processes import StopSignal, random_id
from ps_vae.train.repetitions import Repetitions
from ps_vae.train.reports import Reports
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.shard import rules_of, shard_of
from ps_vae.train.taking_up import KnownRun
from ps_vae.train.warm_up import warm_up_shard
from ps_vae.vae.layout import ParameterLayout

__all__ = ["FirstServer", "invitation"]

Say = Callable[[str], None]

_SAY_SECONDS = 5.0
# Milestones that an evaluator may be behind.
_UNJUDGED = 10


class FirstServer:
    """A server that serves: the state machines, the folder, the signals."""

    def __init__(
        self,
        config: RunConfig,
        layout: ParameterLayout,
        folder: RunFolder,
        options: ServerOptions,
        endpoint: Endpoint,
        state: ShardState,
        metrics: MetricsServer | None,
        say: Say,
        should_stop: StopSignal,
        known: KnownRun | None,
        found: Found | None,
    ) -> None:
        self._metrics = metrics
        self._config, self._layout, self._folder = config, layout, folder
        self._say, self._should_stop = say, should_stop
        self._reports = Reports(config, folder)
        if options.resume:
            self._reports.resume(state.version if found is None else found.members[0].before)
        self._writer = CheckpointWriter(folder.checkpoints, layout, options.keep, self._spare)
        self._said_at = time.monotonic()
        self._failure = ""
        # Of the newest checkpoint that this server wrote; None while there is none.
        self._checkpoint: int | None = None
        self._failures = 0
        self._unwritten = ""
        self._changes = Counts()
        self._repetitions = Repetitions()
        self._obeyed = 0
        self._misses_judges = False
        slices = partition(layout.size, options.shards + options.remote_shards)
        self._known = known or KnownRun(random_id(), random_id(), state.version, len(slices))
        self._is_noted = False
        self._goes_on = found is not None
        rules = rules_of(config, self._known.run, self._known.first, self._known.secret)
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
            found=found,
            tickets=self._known.tickets,
        )
        self._shard, segment = None, None
        if not self._goes_on:
            self._shard, segment = shard_of(config, rules, 0, slices[0], _part(state, slices[0]), options.transport)
        self._server = Server(
            endpoint, self._shard, coordinator=self._coordinator, segment=segment, notify=self._notice
        )
        here = connectable(endpoint.address)
        join = ["server", "--join", here, "--advertise", SAME_HOST, "--transport", options.transport]
        join += ["--log-format", options.log_format]
        join += ["--insecure"] if options.keys is None else ["--keys", str(options.keys)]
        self._others = OwnServers(join, endpoint.address, replicas=options.replicas, say=say)
        if self._goes_on:
            self._others.go_on()
        elif not should_stop():
            self._others.start(options.shards - 1, options.replicas * len(slices))
        text = "listening on {address}; {invitation}"
        say(Line("listening", text, address=endpoint.address, invitation=invitation(endpoint)))
        if options.await_workers > 1:
            text = "the first step begins when {workers} workers are ready"
            say(Line("awaiting-workers", text, workers=options.await_workers))
        if options.remote_shards and not self._goes_on:
            text = "waiting for {shards} more shards; start them with: start-server --join ADDRESS"
            say(Line("awaiting-shards", text, shards=options.remote_shards))

    def run(self) -> dict[str, Any]:
        try:
            if self._goes_on:
                self._note()
                self._server.dispatch(self._coordinator.begin(time.monotonic()))
            else:
                warm_up_shard(self._config)
            ended = self._server.run(self._tick)
            self._folder.forget_servers()
        finally:
            self._say_all(self._repetitions.rest(time.monotonic()))
            self._server.close()
            self._writer.close()
            self._others.stop()
        self._reports.flush()
        result = self._result(ended)
        try:
            self._folder.write_result(result)
        except OSError as error:
            text = "WARNING: {path} could not be written: {why}"
            path = f"{self._folder.path}/result.json"
            self._say(Line("result-not-written", text, level=WARNING, path=path, why=error.strerror))
        return result

    def _tick(self) -> None:
        self._say_all(self._repetitions.due(time.monotonic()))
        if self._metrics is not None and self._metrics.is_due:
            self._metrics.show(self._coordinator.state(time.monotonic()))
        if self._reports.unwritten != self._unwritten:
            self._unwritten = self._reports.unwritten
            why = self._unwritten or "metrics.jsonl is written again"
            event = "metrics-not-written" if self._unwritten else "metrics-written-again"
            line = Line(event, "WARNING: {why}; training goes on", level=WARNING, why=why)
            self._say_all(self._repetitions.heard(line, time.monotonic()))
        for written in self._writer.finished():
            self._failure = written.failure
            self._failures += bool(written.failure)
            self._checkpoint = self._checkpoint if written.failure else written.version
            self._say_all(self._repetitions.heard(written.line, time.monotonic()))
            self._server.dispatch(self._coordinator.finished_writing(written.version, time.monotonic()))
        if self._should_stop.count > self._obeyed:
            self._obeyed = self._should_stop.count
            self._obey()
        self._stop_early()
        if self._server.ended is None:
            if (reason := self._others.ended()) is not None:
                self._server.dispatch(self._coordinator.end(True, reason, time.monotonic()))
            self._others.fill_up(lacks_follower=self._coordinator.lacks_follower)
        if not self._is_noted and self._coordinator.can_be_taken_up:
            self._note()

    def _note(self) -> None:
        """Who is started here again will know which run its servers have."""
        self._is_noted = True
        try:
            self._known.write(self._folder)
        except OSError as error:
            text = "WARNING: {path} could not be written: {why}; a first server that is lost costs up to a checkpoint"
            path = f"{self._folder.path}/servers.json"
            self._say(Line("servers-not-written", text, level=WARNING, path=path, why=error.strerror))

    def _spare(self, versions: Sequence[int]) -> set[int]:
        """The best checkpoint, and where there are judges the newest that are not judged yet: one may be the best."""
        best = self._reports.best
        has_judges = best.newest >= 0 or self._config.patience > 0
        unjudged = [version for version in versions if version > best.newest] if has_judges else []
        return {*unjudged[:_UNJUDGED], *(version for version in versions if version == best.version)}

    def _stop_early(self) -> None:
        best, patience = self._reports.best, self._config.patience
        if not patience or self._coordinator.phase != "training":
            return
        behind = (self._reports.latest.get("version", 0) - max(0, best.newest)) // self._config.milestone
        if behind > _UNJUDGED and not self._misses_judges:
            self._misses_judges = True
            text = "WARNING: nobody evaluates the run, so --patience {patience} does not end it; start one: {command}"
            command = "ps-vae evaluator --server ADDRESS"
            self._say(Line("no-evaluator", text, level=WARNING, patience=patience, command=command))
        if (decision := self._reports.decide()) is None:
            return
        self._say(Line("stopping-early", "{why}", why=decision.reason))
        self._server.dispatch(self._coordinator.stop(time.monotonic()))

    def _obey(self) -> None:
        now = time.monotonic()
        if self._obeyed == 1:
            text = "stopping: finishing the open steps, then a checkpoint (once more: stop at once)"
            self._say(Line("stopping", text))
            self._server.dispatch(self._coordinator.stop(now))
        elif self._server.ended is None:
            self._server.dispatch(self._coordinator.end(True, "stopped at once, without a last checkpoint", now))

    def _notice(self, event: Event) -> None:
        match event:
            case StepApplied():
                self._reports.step(event)
                self._say_progress()
            case SnapshotTaken():
                self._writer.submit(event)
            case Told():
                self._reports.told(event)
                # At once: of evaluations that come before the next tick, later ones change it no more.
                if self._coordinator.phase == "training":
                    self._reports.decide()
            case Member():
                self._changes.add(event.change)
        if (line := line_of(event)) is not None:
            self._say_all(self._repetitions.heard(line, time.monotonic()))

    def _say_all(self, lines: list[Line]) -> None:
        for line in lines:
            self._say(line)

    def _say_progress(self) -> None:
        now = time.monotonic()
        if now - self._said_at < _SAY_SECONDS or not self._reports.latest:
            return
        self._said_at = now
        latest = self._reports.latest
        _, pace = self._reports.speed()
        text = "step {version:,} of {steps:,}: ELBO {elbo:.3f}, {examples_per_second:,.0f} examples/s"
        about = {"version": latest["version"], "elbo": latest["elbo"], "steps": self._config.steps}
        self._say(Line("progress", text, examples_per_second=pace, **about))

    def _figures(self) -> dict[str, Any]:
        """What the run adds to the coordinator's state."""
        seconds, pace = self._reports.speed()
        latest = self._reports.latest
        return {
            "bytes_dense": self._dense_bytes(),
            **{name: latest.get(name) for name in ("elbo", "reconstruction", "kl")},
            "validation": self._reports.validation,
            "examples_per_second": round(pace, 1),
            "seconds": round(seconds, 3),
            "batch_size": self._config.batch_size,
            "changes": self._changes.by_kind(),
            "checkpoint": self._checkpoint,
            "checkpoint_failures": self._failures,
            "run_dir": str(self._folder.path),
        }

    def _dense_bytes(self) -> int:
        """Of tensors, if every batch ended in an exchange of them as they are."""
        return self._config.batches_a_step * sum(shard.dense for shard in self._coordinator.shards)

    def _result(self, ended: RunEnded) -> dict[str, Any]:
        seconds, pace = self._reports.speed()
        state = self._coordinator.state(time.monotonic())
        failed, reason = ended.failed, ended.reason
        if self._failure and not failed:
            failed, reason = True, self._failure
        best, decision = self._reports.best, self._reports.early_stop
        if decision is not None and not failed:
            reason = decision.reason
        return {
            "run_dir": str(self._folder.path),
            "steps": self._config.steps,
            "version": state["version"],
            "examples": self._reports.examples,
            "seconds": round(seconds, 3),
            "examples_per_second": round(pace, 1),
            "bytes_pushed": state["bytes_pushed"],
            "bytes_pulled": state["bytes_pulled"],
            "bytes_shared": state["bytes_shared"],
            "bytes_dense": state["bytes_dense"],
            "time": state["time"],
            "elbo": self._reports.latest.get("elbo"),
            "validation": self._reports.validation,
            "best": None if best.version is None else {"version": best.version, "elbo": best.elbo},
            "stopped_early": decision is not None,
            "failed": failed,
            "reason": reason,
        }


def _part(state: ShardState, piece: Slice) -> ShardState:
    """What a shard begins with: copies, where it is written to."""
    own = slice(piece.start, piece.stop)
    optimizer = {name: array[own].copy() for name, array in state.optimizer.items()}
    return ShardState(state.version, state.weights[own], optimizer, metrics=state.metrics)


def invitation(endpoint: Endpoint) -> str:
    """What to start workers with."""
    here = endpoint.address.replace("0.0.0.0", "THIS-HOST").replace("[::]", "THIS-HOST")
    return f"start workers with: start-worker --server {here}"
