"""A whole run in this process: the state machines of server and worker, without sockets, folder or other processes.

A synchronous run gives the same weights, bit for bit, as one between processes of the same configuration and data.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ps_vae.data import Dataset
from ps_vae.errors import NumericalError, PsVaeError
from ps_vae.ps.addresses import SAME_HOST
from ps_vae.ps.client import work_over
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.in_process import InProcess
from ps_vae.ps.outbox import Event, Refused, SnapshotTaken, StepApplied
from ps_vae.ps.partition import Slice
from ps_vae.ps.state import ShardState
from ps_vae.train.arithmetic import fingerprint, one_thread
from ps_vae.train.config import RunConfig
from ps_vae.train.member import own_name
from ps_vae.train.processes import random_id
from ps_vae.train.shard import rules_of, shard_of
from ps_vae.train.worker import Program
from ps_vae.vae.layout import ParameterLayout

__all__ = ["Progress", "train_here"]

Vector = npt.NDArray[np.float32]


class Progress(NamedTuple):
    """How far a run is: versions done and in all, and means over the newest step's examples, in nats."""

    version: int
    steps: int
    elbo: float
    kl: float


def train_here(
    config: RunConfig,
    data: Dataset,
    state: ShardState,
    progress: Callable[[Progress], None] = lambda progress: None,
    is_over: Callable[[int, Vector], bool] = lambda version, weights: False,
) -> Vector:
    """The weights (size,) after all steps of a run that begins with `state`.

    is_over  called with version and weights of each milestone; where it says so the run ends there

    Raises NumericalError where a gradient is not finite any more, PsVaeError where it ends otherwise.
    """
    run = _Run(config, data, state, progress, is_over)
    return run.weights()


class _Run:
    def __init__(
        self,
        config: RunConfig,
        data: Dataset,
        state: ShardState,
        progress: Callable[[Progress], None],
        is_over: Callable[[int, Vector], bool],
    ) -> None:
        self._config, self._progress, self._is_over = config, progress, is_over
        self._trained: Vector | None = None
        self._is_enough = False
        whole = Slice(0, ParameterLayout(config.model).size)
        rules = rules_of(config, random_id(), state.version, random_id())
        shard, _ = shard_of(config, rules, 0, whole, state, "tcp")
        self._coordinator = Coordinator(rules, [whole], SAME_HOST, config.pack(), state)
        self._links = InProcess(self._coordinator, shard, self._notice)
        self._program = Program(data, say=self._hear)
        self._said = ""

    def weights(self) -> Vector:
        with one_thread():
            outcome = work_over(
                self._links,
                self._program,
                name=own_name(),
                fingerprint=fingerprint(),
                should_stop=lambda: self._is_enough,
            )
        if self._trained is None and self._said:
            raise NumericalError(self._said)
        if self._trained is None:
            raise PsVaeError(outcome.reason)
        return self._trained

    def _notice(self, event: Event) -> None:
        match event:
            case StepApplied():
                log_likelihood, kl = (total / self._config.rows_a_step for total in event.metrics)
                self._progress(Progress(event.version, self._config.steps, log_likelihood - kl, kl))
            case Refused():
                raise PsVaeError(f"a fault in ps_vae itself: {event.who} was refused ({event.code}): {event.text}")
            case SnapshotTaken():
                weights = event.parts[0].payload[0]
                self._is_enough = self._is_enough or self._is_over(event.version, weights)
                if event.version == self._config.steps or self._is_enough:
                    self._trained = weights.copy()
                self._links.dispatch(self._coordinator.finished_writing(event.version, time.monotonic()))

    def _hear(self, text: Any) -> None:
        """What a worker says of its work: why it fails, where it does."""
        if getattr(text, "event", "") == "work-failed":
            self._said = str(text)
