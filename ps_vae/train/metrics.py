"""A run's state, as `ps-vae status` has it, as Prometheus metrics.

Names are ps_vae_WHAT_UNIT; what only grows ends in _total. Nothing is kept from one scrape to the next: each is made of
one state, so that its figures belong together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest

__all__ = ["exposition"]

State = Mapping[str, Any]
_Value = Callable[[State], float | None]

_PHASES = ("starting", "training", "stopping", "closing", "ended")

# name, what it is, its value in a state
_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    ("version", "Steps that are in the weights of every shard.", lambda state: state["version"]),
    ("steps", "Steps of the whole run.", lambda state: state["steps"]),
    ("steps_per_second", "Over the last ten seconds.", lambda state: state["steps_per_second"]),
    ("examples_per_second", "Since the first step.", lambda state: state["examples_per_second"]),
    ("elbo_nats", "Of the newest training report, per example.", lambda state: state["elbo"]),
    ("validation_elbo_nats", "Of the newest validation, per example.", lambda state: state["validation"].get("elbo")),
    ("checkpoint_version", "Of the newest checkpoint that this server wrote.", lambda state: state["checkpoint"]),
    ("workers", "Workers in the run.", lambda state: state["worker_count"]),
    ("evaluators", "Evaluators in the run.", lambda state: len(state["evaluators"])),
)
_COUNTERS: tuple[tuple[str, str, _Value], ...] = (
    ("pushed_bytes", "From workers to shards.", lambda state: state["bytes_pushed"]),
    ("pulled_bytes", "From shards to clients.", lambda state: state["bytes_pulled"]),
    ("shared_bytes", "Of both, read in shared memory, not sent.", lambda state: state["bytes_shared"]),
    ("dense_bytes", "Both, if float32 tensors went after every batch.", lambda state: state["bytes_dense"]),
    ("reissued_blocks", "Blocks that were given out once more.", lambda state: state["reissued_blocks"]),
    ("backed_up_blocks", "Late blocks that a second worker got too.", lambda state: state["backed_up_blocks"]),
    ("duplicate_pushes", "Pushes that were counted already.", lambda state: state["duplicates"]),
    ("checkpoint_failures", "Checkpoints that could not be written.", lambda state: state["checkpoint_failures"]),
)
# name, what it is, its value of a worker
_OF_WORKERS: tuple[tuple[str, str, _Value], ...] = (
    ("worker_microbatches_per_second", "Its speed, measured.", lambda worker: worker["microbatches_per_second"]),
    ("worker_step", "The step that it has work of.", lambda worker: worker["step"]),
    ("worker_lease_microbatches", "How much of it.", lambda worker: worker["microbatches"]),
    ("worker_lease_seconds", "How long it may still take.", lambda worker: worker["lease_seconds"]),
    ("worker_silent_seconds", "Since it was heard of.", lambda worker: worker["silent_seconds"]),
    ("worker_refused", "Pieces of its work that could not be used.", lambda worker: worker["refused"]),
)
_OF_SHARDS: tuple[tuple[str, str, _Value], ...] = (
    ("shard_up", "1: it is there.", lambda shard: float(shard["up"])),
    ("shard_version", "Steps that are in its weights.", lambda shard: shard["version"]),
    ("shard_incarnation", "Servers that have led it before.", lambda shard: shard["incarnation"]),
    (
        "shard_follower_ready",
        "1: a follower could take its place now.",
        lambda shard: float(shard["follower"] == "ready"),
    ),
    ("shard_follower_lag_versions", "Versions that its follower lacks.", lambda shard: shard["lag"]),
    ("shard_follower_lag_seconds", "In which the run makes as many.", lambda shard: shard["lag_seconds"]),
    (
        "shard_follower_silent_seconds",
        "Since its follower was heard of.",
        lambda shard: shard["follower_silent_seconds"],
    ),
)
# name, what it is, its label, counts by that
_BY_KIND: tuple[tuple[str, str, str, str], ...] = (
    ("refused_messages", "Messages that were refused, by why.", "code", "refused"),
    ("member_changes", "What happened to members.", "change", "changes"),
)


def exposition(state: State, age: float) -> bytes:
    """All metrics of a state that is `age` seconds old, in Prometheus' text format, version 0.0.4.

    What is not known is left out.
    """
    return generate_latest(_Once(_families(state, age)))


class _Once:
    """A collector of one scrape. The library's global registry would add what is no business of the run."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _families(state: State, age: float) -> Iterator[Metric]:
    about = {"run": state["run"], "run_dir": state["run_dir"], "consistency": state["consistency"]}
    yield InfoMetricFamily("ps_vae_run", "Which run this is.", about)
    yield _one(GaugeMetricFamily, "state_age_seconds", "How old these figures are.", age)
    for name, what, value in _GAUGES:
        yield _one(GaugeMetricFamily, name, what, value(state))
    for name, what, value in _COUNTERS:
        yield _one(CounterMetricFamily, name, what, value(state))
    phases = {phase: float(state["phase"] == phase) for phase in _PHASES}
    yield _many(GaugeMetricFamily, "phase", "1: the run is in this phase.", "phase", phases.items())
    time = "What the workers' time went into, as parts of 1."
    yield _many(GaugeMetricFamily, "time_ratio", time, "activity", state["time"].items())
    for name, what, label, key in _BY_KIND:
        yield _many(CounterMetricFamily, name, what, label, state[key].items())
    workers = list(zip(_unique(worker["name"] for worker in state["workers"]), state["workers"], strict=True))
    for name, what, value in _OF_WORKERS:
        yield _many(GaugeMetricFamily, name, what, "worker", ((who, value(worker)) for who, worker in workers))
    for name, what, value in _OF_SHARDS:
        numbered = ((str(number), value(shard)) for number, shard in enumerate(state["shards"], 1))
        yield _many(GaugeMetricFamily, name, what, "shard", numbered)


_Family = type[GaugeMetricFamily] | type[CounterMetricFamily]


def _one(family: _Family, name: str, what: str, value: float | None) -> Metric:
    metric = family(f"ps_vae_{name}", what)
    if value is not None:
        metric.add_metric([], value)
    return metric


def _many(family: _Family, name: str, what: str, label: str, values: Iterable[tuple[str, float | None]]) -> Metric:
    metric = family(f"ps_vae_{name}", what, labels=[label])
    for kind, value in values:
        if value is not None:
            metric.add_metric([kind], value)
    return metric


def _unique(names: Iterable[str]) -> Iterator[str]:
    """Workers name themselves; two series of one name would make a scrape invalid."""
    taken: set[str] = set()
    for name in names:
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name} ({number})", number + 1
        taken.add(unique)
        yield unique
