"""A server of ps_vae without a model: the shipped endpoint, coordinator, shard, sharing and update rule.

    python -m exchange.stub_server --task JSON --listen tcp://127.0.0.1:*     the first server of a run, see `Task`
    python -m exchange.stub_server --task JSON --listen tcp://127.0.0.1:* --join ADDRESS     a further shard of it

It answers {"address"} when it can be reached.

order {"do": "sample"}   answer: `sampled` now
order {"do": "stop"}     the first server ends the run
when it has ended        answer: `sampled`, and "pushes", [step, first microbatch, came, was done with, whether the step
                         was applied with it] of each, in nanoseconds of the host's monotonic clock
"""

import argparse
import dataclasses
import json
import resource
import time
from dataclasses import dataclass
from typing import Any

from exchange.turns import Orders, answer
from ps_vae.jit import start_numba
from ps_vae.ps.addresses import reachable_from, same_host
from ps_vae.ps.buffers import Buffers, aligned
from ps_vae.ps.consistency import Consistency, parse_consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.identity import FIRST, ServerIdentity
from ps_vae.ps.joining import join
from ps_vae.ps.messages import PROTOCOL, Join, Pull, Push, TakeSnapshot
from ps_vae.ps.outbox import Event, Output, RunEnded, Sender, StepApplied
from ps_vae.ps.partition import partition
from ps_vae.ps.rules import RunRules
from ps_vae.ps.server import Server
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState
from ps_vae.ps.transport import PUBLISHED, open_segment
from ps_vae.train.config import RunConfig
from ps_vae.train.gradient import METRICS, is_finite
from ps_vae.train.processes import random_id
from ps_vae.train.update import fresh_state, look_ahead_rule, shard_rule
from ps_vae.train.warm_up import warm_up_shard
from ps_vae.vae.config import ModelConfig

__all__ = ["Task"]

# Further than any benchmark gets.
_LAST_STEP = 1 << 31
_LEARNING_RATE = 1e-6
_JOIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Task:
    """What the servers of a run are told.

    size          parameters, a multiple of 16
    microbatches  of a step: as many as there are workers, and each has one
    update        an optimizer's name
    transport     how tensors travel: one of ps_vae.ps.transport.TRANSPORTS
    """

    size: int
    shards: int = 1
    microbatches: int = 1
    update: str = "sgd"
    transport: str = "auto"
    consistency: str = "bsp"

    def config(self) -> RunConfig:
        """As the programs of ps_vae know it; what it says of model and data nobody here looks at."""
        return RunConfig(
            data="none",
            split="1,0,0",
            data_fingerprint="none",
            train_rows=self.microbatches,
            binarize="none",
            model=ModelConfig(inputs=1),
            bias_from_data=False,
            beta=1.0,
            beta_warmup=0,
            optimizer=self.update,
            learning_rate=_LEARNING_RATE,
            schedule="constant",
            batch_size=self.microbatches,
            microbatch=1,
            steps=_LAST_STEP,
            milestone=_LAST_STEP,
            report_every=_LAST_STEP,
            consistency=self.consistency,
            seed=0,
        )


class _TimedShard(Shard):
    """Notes when a push came and when the shard was done with it."""

    pushes: list[tuple[int, int, int, int, bool]]

    def handle(self, sender: Sender, message: Push | Pull | TakeSnapshot, now: float) -> list[Output]:
        if not isinstance(message, Push):
            return super().handle(sender, message, now)
        came = time.perf_counter_ns()
        outputs = super().handle(sender, message, now)
        done = time.perf_counter_ns()
        applied = any(isinstance(output, StepApplied) for output in outputs)
        self.pushes.append((message.step, message.start, came, done, applied))
        return outputs


class _Run:
    """The server, its orders and its record."""

    def __init__(self, server: Server, shard: _TimedShard, coordinator: Coordinator | None) -> None:
        self._server, self._shard, self._coordinator = server, shard, coordinator
        self._orders = Orders()
        self._has_stopped = False

    def run(self) -> None:
        try:
            self._server.run(self._obey)
            answer({**self.sampled(), "pushes": self._shard.pushes})
        finally:
            self._server.close()

    def sampled(self) -> dict[str, Any]:
        """seconds (monotonic), cpu (seconds of this process), version, count of pushes, bytes by ps_vae's own count."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        reissued = self._coordinator.backlog.reissued if self._coordinator is not None else 0
        return {
            "seconds": time.monotonic(),
            "cpu": usage.ru_utime + usage.ru_stime,
            "version": self._shard.version,
            "count": len(self._shard.pushes),
            "duplicates": self._shard.duplicates,
            "reissued": reissued,
            "workers": len(self._coordinator.clients) if self._coordinator is not None else 0,
            "buffers": self._shard.buffers.made,
            **dataclasses.asdict(self._shard.traffic),
        }

    def _obey(self) -> None:
        while (order := self._orders.poll()) is not None:
            if order["do"] == "sample":
                answer(self.sampled())
            else:
                self._stop("stopped")
        if self._orders.have_ended:
            self._stop("nobody listens")

    def _stop(self, reason: str) -> None:
        if self._has_stopped:
            return
        self._has_stopped = True
        if self._coordinator is not None:
            self._server.dispatch(self._coordinator.end(False, reason, time.monotonic()))
        else:
            self._server.dispatch([RunEnded(False, reason)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--join")
    words = parser.parse_args()
    task = Task(**json.loads(words.task))
    start_numba()
    warm_up_shard(task.config())
    (_further(words.listen, words.join, task) if words.join else _first(words.listen, task)).run()


def _first(listen: str, task: Task) -> _Run:
    slices = partition(task.size, task.shards)
    endpoint = Endpoint(listen, 4 * max(piece.size for piece in slices))
    config = task.config()
    rules = RunRules(
        run=random_id(),
        microbatches=config.microbatches,
        steps=config.steps,
        consistency=parse_consistency(config.consistency),
        milestone=config.milestone,
        metrics=len(METRICS),
    )
    state = fresh_state(config, aligned(task.size))
    coordinator = Coordinator(rules, slices, same_host(endpoint.address), config.pack(), state)
    own = slices[0].stop
    part = ShardState(0, state.weights[:own], {name: array[:own].copy() for name, array in state.optimizer.items()})
    return _started(endpoint, 0, rules, part, task, FIRST, coordinator=coordinator)


def _further(listen: str, coordinator: str, task: Task) -> _Run:
    endpoint = Endpoint(listen, 4 * task.size)
    identity = ServerIdentity(random_id(), reachable_from(endpoint.address, coordinator))
    ask = Join(PROTOCOL, identity.session, identity.address, False)
    link, admit = join(coordinator, ask, timeout=_JOIN_SECONDS, should_stop=lambda: False)
    consistency = Consistency(admit.bound, admit.delay, admit.version)
    rules = RunRules(admit.run, admit.microbatches, admit.steps, consistency, admit.milestone, len(METRICS))
    weights, *arrays = (array.copy() for array in admit.payload)
    state = ShardState(admit.version, weights, dict(zip(admit.names, arrays, strict=True)))
    return _started(endpoint, admit.shard, rules, state, task, identity, link=link)


def _started(
    endpoint: Endpoint,
    number: int,
    rules: RunRules,
    state: ShardState,
    task: Task,
    identity: ServerIdentity,
    **around: Any,
) -> _Run:
    size, config = state.weights.size, task.config()
    segment = open_segment(PUBLISHED, size, task.transport)
    published = Buffers(size, segment.arrays() if segment is not None else ())
    rule, ahead = shard_rule(config), look_ahead_rule(config)
    shard = _TimedShard(number, rules, state, rule, published, is_finite, ahead, identity=identity)
    shard.pushes = []
    server = Server(endpoint, shard, segment=segment, notify=_unnoticed, **around)
    answer({"address": endpoint.address})
    return _Run(server, shard, around.get("coordinator"))


def _unnoticed(event: Event) -> None:
    """Nobody watches this run."""


if __name__ == "__main__":
    main()
