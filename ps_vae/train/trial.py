"""The first steps of a run that chooses its communication: done twice, timed, and thrown away.

A trial is a run of its own, with its own name, on the first server alone. It ends without a word: the next message of
each worker is answered as one of an earlier start is, so that it says hello and joins what comes next.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data import Dataset
from ps_vae.errors import PsVaeError, UsageError
from ps_vae.lines import Line
from ps_vae.ps.addresses import same_host
from ps_vae.ps.aggregation.table import MEAN
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.outbox import Event, Member, RunEnded, StepApplied
from ps_vae.ps.partition import Slice
from ps_vae.ps.server import Server
from ps_vae.ps.state import ShardState
from ps_vae.train.choice import CANDIDATES, TINY, Measured, choose, without_changes
from ps_vae.train.config import RunConfig
from ps_vae.train.encoding import pull_codecs, push_codecs
from ps_vae.train.event_lines import line_of
from ps_vae.train.plan import CHOSEN, Wishes, in_rounds, plan
from ps_vae.train.processes import StopSignal, random_id
from ps_vae.train.shard import rules_of, shard_of
from ps_vae.train.update import fresh_state
from ps_vae.train.warm_up import warm_up_shard
from ps_vae.vae.layout import ParameterLayout

__all__ = ["COMMUNICATION", "check_communication", "with_communication"]

# Steps of a trial; fewer where they take too long. The second half is timed: at first everything is slow.
_STEPS, _FEWEST = 60, 5
_SECONDS = 3.0
_NEVER = 1 << 30
# Where a run would have fewer, the outer optimizer has not got under way when it is over.
_FEWEST_ROUNDS = 32

Say = Callable[[str], None]
Vector = npt.NDArray[np.float32]


# What a run adds to the coordinator's state.
_NOTHING_KNOWN: Mapping[str, Any] = {
    "phase": "measuring the links",
    **dict.fromkeys(("elbo", "reconstruction", "kl")),
    "validation": {},
    "examples_per_second": 0.0,
    "seconds": 0.0,
    "run_dir": "no folder yet",
    "changes": {},
}

COMMUNICATION = ("manual", "auto")
"""As the run's options say, or as a trial finds best."""


def check_communication(communication: str, wishes: Wishes, *, resumes: bool) -> None:
    """Raises UsageError where there is no such way, or something is said that would be chosen."""
    if communication not in COMMUNICATION:
        raise UsageError(f"--communication {communication}: choose one of {', '.join(COMMUNICATION)}")
    if communication == COMMUNICATION[0]:
        return
    if resumes:
        raise UsageError("--communication auto is for the start of a run; with --resume it goes on as was chosen then")
    if wishes.aggregate not in (None, MEAN):
        raise UsageError(
            f"--communication auto chooses among ways to send sums, and --aggregate {wishes.aggregate} sends none; "
            "leave one of the two out"
        )
    said = [name for name in CHOSEN if name in wishes.said()]
    if said:
        flag = "--" + said[0].replace("_", "-")
        raise UsageError(f"--communication auto chooses {flag} itself; leave one of the two out")


def with_communication(
    config: RunConfig,
    wishes: Wishes,
    data: Dataset,
    weights: Vector,
    endpoint: Endpoint,
    *,
    transport: str,
    await_workers: int,
    say: Say,
    should_stop: StopSignal,
) -> RunConfig:
    """The configuration with what fits the links and the workers that come, and says why.

    Raises PsVaeError where the run is told to stop before that is known, or the trial fails as a run would.

    wishes   of the run; of its communication nothing is said in them
    weights  (size,) float32, of the start; only read
    """
    plain = dataclasses.replace(config, delay=0, steps=max(config.steps, _STEPS + 1))
    fits = (lambda options: options) if parse_consistency(config.consistency).is_synchronous else without_changes
    text = "measuring the links; training begins after that (workers awaited: {workers})"
    say(Line("measuring", text, workers=await_workers))
    found = []
    for options in ({}, fits(TINY)):
        trial = _Trial(dataclasses.replace(plain, **options), weights, endpoint, transport, await_workers, say)
        measured = trial.run(should_stop)
        if measured is None:
            raise PsVaeError("stopped while the links were measured; nothing was written")
        found.append(measured)
    large, small = found

    def with_options(options: Mapping[str, Any]) -> RunConfig:
        return plan(in_rounds(dataclasses.replace(wishes, **options)), data)

    def size_of(options: Mapping[str, Any]) -> float:
        return large.workers * _bytes_of(with_options(options), large.workers)

    candidates = [fits(options) for options in CANDIDATES]
    possible = [o for o in candidates if "local_steps" not in o or with_options(o).steps >= _FEWEST_ROUNDS]
    choice = choose(large, small, size_of, possible)
    say(Line("communication", "{why}", why=choice.why, options=dict(choice.options)))
    return with_options(choice.options)


def _bytes_of(config: RunConfig, workers: int) -> float:
    """A worker's pushes and pulls of a step, where all have equal shares."""
    whole = Slice(0, ParameterLayout(config.model).size)
    pushes = [make(max(1, config.microbatches // workers)).words for make in push_codecs(config, [whole])]
    pulls = [made.codec.words for made in pull_codecs(config, [whole])]
    return 4.0 * (sum(pushes or [whole.size]) + sum(pulls or [whole.size]))


class _Trial:
    """One run that is timed."""

    def __init__(
        self, config: RunConfig, weights: Vector, endpoint: Endpoint, transport: str, await_workers: int, say: Say
    ) -> None:
        self._say = say
        self._times: list[float] = []
        state = fresh_state(config, weights)
        # It never ends by itself: nobody is to be told that the run is over.
        rules = dataclasses.replace(rules_of(config, random_id(), 0, random_id()), steps=_NEVER, milestone=_NEVER)
        whole = Slice(0, weights.size)
        own = ShardState(0, weights, {name: array.copy() for name, array in state.optimizer.items()})
        self._shard, segment = shard_of(config, rules, 0, whole, own, transport)
        self._coordinator = Coordinator(
            rules,
            [whole],
            same_host(endpoint.address),
            config.pack(),
            state,
            lambda: {**_NOTHING_KNOWN, "steps": config.steps},
            awaited=await_workers,
            takes_shards=False,
        )
        self._server = Server(
            endpoint, self._shard, coordinator=self._coordinator, segment=segment, notify=self._notice
        )
        warm_up_shard(config)

    def run(self, should_stop: StopSignal) -> Measured | None:
        """None where it was told to stop. PsVaeError where the workers cannot compute."""

        def obey() -> None:
            if should_stop():
                # Workers are told: nobody is there soon whom they could ask.
                self._server.dispatch(self._coordinator.end(False, "told to stop", time.monotonic()))

        ended = self._server.run(obey)
        self._server.leave()
        if ended.failed:
            raise PsVaeError(f"--communication auto could not measure: {ended.reason}")
        if should_stop():
            return None
        workers = [client for client in self._coordinator.clients.values() if client.role == "worker"]
        pace = [client.pace * client.microbatches for client in workers if client.pace is not None]
        timed = self._times[(len(self._times) - 1) // 2 :]
        step = statistics.median(after - before for before, after in pairwise(timed))
        computing = min(step, max(pace, default=step))
        traffic = self._shard.traffic
        return Measured(
            computing=computing,
            exchange=step - computing,
            bytes=(traffic.pushed + traffic.pulled) / len(self._times),
            workers=max(1, len(pace)),
        )

    def _notice(self, event: Event) -> None:
        match event:
            case Member() if (line := line_of(event)) is not None:
                self._say(line)
            case StepApplied():
                self._times.append(time.monotonic())
                is_slow = event.version >= _FEWEST and self._times[-1] - self._times[0] > _SECONDS
                if event.version >= _STEPS or is_slow:
                    self._server.dispatch([RunEnded(False, "measured")])
