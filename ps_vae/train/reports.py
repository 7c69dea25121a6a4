"""What a server knows about its run: sums over steps become lines of metrics.jsonl and figures for `status`."""

import math
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ps_vae.ps.outbox import StepApplied, Told
from ps_vae.train.best import Best
from ps_vae.train.config import RunConfig
from ps_vae.train.early_stop import EARLY_STOP, EarlyStop
from ps_vae.train.run_folder import RunFolder

__all__ = ["Reports"]

_LATEST = ("version", "elbo", "reconstruction", "kl", "beta", "learning_rate", "staleness")


class Reports:
    """Collects the events of the coordinator's own shard.

    A line covers the steps since the line before; sums are in the order of application, in float64, so under bsp
    the lines are the same whoever computed the steps. A run that stops between two lines leaves an unfinished one. It
    belongs to the checkpoint of its version and stays: whoever goes on from there, however often, counts from it.

    Timed are steps that follow one of this process. How long the first takes nobody knows: processes start, kernels
    are compiled and workers are waited for. The pace of a line is that of its timed steps, None where there is none.

    examples    of all steps that were told here
    best        what evaluators told
    early_stop  the decision to end the run for what they told; None while there is none
    unwritten   why the newest line could not be written, if so
    """

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self.latest: dict[str, Any] = {}
        self.validation: dict[str, float] = {}
        self.examples = 0
        self._config = config
        self._folder = folder
        self._steps = 0
        self._sums = [0.0, 0.0]
        self._staleness = 0
        self.best = Best()
        self.early_stop: EarlyStop | None = None
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None
        self._timed, self._seconds = 0, 0.0
        self.unwritten = ""

    def step(self, event: StepApplied) -> None:
        """Count a step; write a line where one is due."""
        now = time.monotonic()
        if self._first is None or self._last is None:
            self._first = (now, event.version)
        else:
            self._timed += 1
            self._seconds += now - self._last[0]
        self._last = (now, event.version)
        self._steps += 1
        self.examples += self._config.rows_a_step
        self._sums = [total + value for total, value in zip(self._sums, event.metrics, strict=True)]
        self._staleness = max(self._staleness, event.staleness)
        config = self._config
        if (
            event.version % config.report_every == 0
            or event.version % config.milestone == 0
            or event.version == config.steps
        ):
            self._write(event.version)

    def told(self, event: Told) -> None:
        """An evaluator's figures; whoever tells them again tells nothing new."""
        if event.version <= self.best.newest:
            return
        self.validation = {**dict(event.values), "version": event.version}
        self.best.told(event.version, self.validation.get("elbo", math.nan))
        self._append({**dict(event.values), "kind": "validation", "version": event.version})

    def decide(self) -> EarlyStop | None:
        """Whether the run ends early; that is decided once, and written down before anybody acts on it."""
        if self.early_stop is None:
            self.early_stop = EarlyStop.due(self.best, self._config.patience)
            if self.early_stop is not None:
                self._append(self.early_stop.line)
        return self.early_stop

    def flush(self) -> None:
        """The run ends, perhaps between two lines: write what has been counted, for a resumed run to go on with.

        Where no step came since it was resumed, that is on the disk already.
        """
        if self._steps and self._last is not None:
            unfinished = {"steps": self._steps, "sums": self._sums, "timed": [self._timed, self._seconds]}
            self._write(self._last[1], kind="unfinished", more=unfinished)

    def resume(self, version: int) -> None:
        """Go on from `version`: later lines are taken again, and an unfinished one is finished."""
        lines = [line for line in self._folder.metrics() if line["version"] <= version]
        for line in lines:
            if line["kind"] == "unfinished" and line["version"] == version:
                self._steps, self._sums, self._staleness = line["steps"], list(line["sums"]), line["staleness"]
                # Of one that says nothing of time, none is known.
                self._timed, self._seconds = line.get("timed", (0, 0.0))
            elif line["kind"] == "training":
                self.latest = {name: line[name] for name in _LATEST}
            elif line["kind"] == "validation":
                self.validation = {name: value for name, value in line.items() if name != "kind"}
        self.best = Best.of(lines)
        self.early_stop = EarlyStop.told(lines, self._config.patience)
        if self.early_stop is None:
            # One that was made with less patience than there is now.
            lines = [line for line in lines if line["kind"] != EARLY_STOP]
        self._folder.rewrite_metrics(lines)

    def speed(self) -> tuple[float, float]:
        """Seconds from the first to the last step of this process, and examples a second.

        The first step is not counted: it waits for processes to start and kernels to compile.
        """
        if self._first is None or self._last is None or self._last[1] == self._first[1]:
            return 0.0, 0.0
        seconds = max(1e-9, self._last[0] - self._first[0])
        examples = (self._last[1] - self._first[1]) * self._config.rows_a_step
        return seconds, examples / seconds

    def _write(self, version: int, kind: str = "training", more: Mapping[str, Any] = MappingProxyType({})) -> None:
        examples = self._steps * self._config.rows_a_step
        log_likelihood, kl = (total / examples for total in self._sums)
        last_batch = version * self._config.batches_a_step - 1
        self.latest = {
            "version": version,
            "elbo": log_likelihood - kl,
            "reconstruction": log_likelihood,
            "kl": kl,
            "beta": self._config.beta_at(last_batch),
            "learning_rate": self._config.rates().rate_at(last_batch),
            "staleness": self._staleness,
        }
        pace = None
        if self._timed:
            pace = round(self._timed * self._config.rows_a_step / max(1e-9, self._seconds), 1)
        self._append({"kind": kind, **self.latest, "time": round(time.time(), 3), "examples_per_second": pace, **more})
        self._steps, self._sums, self._staleness = 0, [0.0, 0.0], 0
        self._timed, self._seconds = 0, 0.0

    def _append(self, line: dict[str, Any]) -> None:
        """A line that the disk refuses is lost; the run is not."""
        try:
            self._folder.append_metrics(line)
            self.unwritten = ""
        except OSError as error:
            self.unwritten = f"{self._folder.path}/metrics.jsonl could not be written: {error.strerror}"
