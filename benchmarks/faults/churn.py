"""Workers come and go: are the bits the same, is nothing lost of the pace, and does nothing grow?

`start-server`, bsp, on one machine, and 1 to 4 times `start-worker --processes 1`. Every 5 s, as soon as there were
four once, either one of the workers is killed, with its little parent, or another one is started, at random. The first
worker is left alone, so that it can be seen whether a worker grows. When the time is over the server gets SIGTERM, and
ends in a checkpoint.

The same run to the same version is the reference: nobody is killed, and there are 1, 2, 3, then 4 workers, a quarter of
the steps each. It gives the bits, and the pace of each number of workers on this machine (4 on 2 cores are not twice
as fast as 2).

    live        from when a worker says that it has joined until it is killed
    expected    the sum over the time of the reference's pace of so many workers as are live
    less starts the same without the share of the cores that processes took while they started (imports, kernels, data),
                which on nodes of their own nobody would miss

What the server and the first worker hold is looked at every second. What grows is the part that depends on the time and
not on the number of workers, from the first minute on, or from the first fifth where the run is shorter than five.
Shared memory is looked at and not judged: it is made of segments, whose sizes are fixed and whose number may not grow,
and a page of one counts from when it is first used.
"""

import argparse
import contextlib
import hashlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from faults import footprint
from faults.cluster import Cluster, Program, Stuck
from faults.published import Published

__all__ = [
    "HELP",
    "Churn",
    "add_options",
    "compare",
    "disturbed",
    "expected_steps",
    "faults",
    "held",
    "live_workers",
    "reference",
    "rows",
    "run",
]

HELP = "workers are killed and added every 5 s: bits, pace, and what grows"

MODEL = ("--data", "mnist-5k", "--batch-size", "256", "--microbatch", "32")
_BATCH = 256
_MOST = 4
_LEAST_RATIO = 0.9
_MORE_MEMORY = 0.05
# What a shorter run has more of at its end it needed for the first time.
_JUDGED_SECONDS = 300.0
# Descriptors and the like: fewer than one worker has, and one of two workers that have come and gone.
_OF_ONE_WORKER, _LEFT_BY_EACH = 4.0, 0.5
_NAMES = ("heap_mb", "shared_mb", "descriptors", "sockets", "segments", "threads")
_START_SECONDS, _END_SECONDS, _LONGEST_SECONDS = 60.0, 20.0, 3600.0
_POLL_SECONDS, _LOOK_SECONDS = 0.05, 1.0

Span = tuple[float, float]


@dataclass(slots=True)
class Worker:
    """One that was started: when, when it had joined and when it was killed, in seconds since the epoch."""

    program: Program
    started: float
    joined: float | None = None
    killed: float | None = None
    start_cpu: float = 0.0


@dataclass(slots=True)
class Churn:
    """What is done, for how long.

    model     words of `start-server`
    seconds   of churn, from the first step on
    every     seconds from one change to the next
    """

    model: tuple[str, ...] = MODEL
    seconds: float = 600.0
    every: float = 5.0
    chance: random.Random = field(default_factory=random.Random)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="from one change to the next")


def run(options: argparse.Namespace) -> dict[str, Any]:
    churn = Churn(seconds=60.0 * options.minutes, every=options.every, chance=random.Random(options.seed))
    return compare(churn)


def compare(churn: Churn) -> dict[str, Any]:
    """The run with churn, and what the reference makes of it."""
    found = disturbed(churn)
    if found["stuck"] or not found["version"]:
        return found
    peace = reference(churn.model, found["version"])
    found["reference"] = peace
    found["same_bits"] = found["digest"] is not None and found["digest"] == peace["digest"]
    if not peace["stuck"]:
        begin, end = found["window"]
        steps = expected_steps(found["live"], (begin, end), peace["steps_per_second"])
        share = found["start_cpu_seconds"] / (len(os.sched_getaffinity(0)) * (end - begin))
        found["expected_steps"] = steps
        found["ratio"] = found["steps_in_window"] / steps
        found["ratio_less_starts"] = found["ratio"] / (1.0 - share)
    return found


def disturbed(churn: Churn) -> dict[str, Any]:
    """The run with churn.

    window             from the first step to the end of the churn, s since the epoch; `steps_in_window`
    version, digest    of the last checkpoint
    live               (joined, killed or end) of each worker
    start_cpu_seconds  of all that were started in the window
    samples            a second: time, workers, server and worker: what they hold
    codes              exit codes of the server, and of the workers that were neither killed nor still starting
    """
    with Cluster() as cluster:
        stage = _Stage(cluster, churn.model, steps=1_000_000_000)
        stuck, window, killed = "", (0.0, 0.0), 0
        try:
            stage.add()
            stage.until(lambda: stage.published.look() > 0, "the first step", _START_SECONDS)
            window = time.time(), time.time() + churn.seconds
            change_at = window[0] + churn.every
            while (now := time.time()) < window[1]:
                stage.watch(now)
                if stage.server.code is not None:
                    raise Stuck(f"the server has ended\n{cluster.last_words()}")
                if now >= change_at:
                    change_at += churn.every
                    killed += _change(stage, churn.chance)
                time.sleep(_POLL_SECONDS)
            stage.stop()
            stage.until_over()
        except Stuck as error:
            stuck = str(error)
        stage.published.look()
        version = stage.published.seen[-1][1] if stage.published.seen else 0
        return {
            "seconds": churn.seconds,
            "window": window,
            "steps_in_window": sum(window[0] < at <= window[1] for at, _ in stage.published.seen),
            "version": version,
            "digest": stage.digest(version),
            "started": len(stage.workers),
            "killed": killed,
            "live": stage.live(window[1]),
            "start_cpu_seconds": sum(worker.start_cpu for worker in stage.workers if worker.started >= window[0]),
            "samples": [sample for sample in stage.samples if sample["time"] <= window[1]],
            "codes": stage.codes(),
            "stuck": stuck,
        }


def reference(model: Sequence[str], steps: int, most: int = _MOST) -> dict[str, Any]:
    """The same run in peace: steps_per_second of 1, 2, ... `most` workers, and the digest of the last checkpoint."""
    with Cluster() as cluster:
        stage = _Stage(cluster, model, steps=steps)
        stuck, paces = "", []
        try:
            for count in range(1, most + 1):
                stage.add()
                stage.until(lambda: all(worker.joined for worker in stage.workers), "a worker", _START_SECONDS)
                begin = time.time()
                stage.until_version(steps * count // most)
                end = stage.published.seen[-1][0]
                paces.append(sum(begin < at <= end for at, _ in stage.published.seen) / max(1e-9, end - begin))
            stage.until_over()
        except Stuck as error:
            stuck = str(error)
        return {"steps_per_second": paces, "digest": stage.digest(steps), "codes": stage.codes(), "stuck": stuck}


def live_workers(live: Sequence[Span], at: float) -> int:
    """How many are live at a time."""
    return sum(begin <= at < end for begin, end in live)


def expected_steps(live: Sequence[Span], window: Span, steps_per_second: Sequence[float]) -> float:
    """Of a run in which the number of live workers changes, at the pace that each number has."""
    edges = sorted({*window, *(edge for span in live for edge in span if window[0] < edge < window[1])})
    paces = [0.0, *steps_per_second]
    return sum(paces[live_workers(live, begin)] * (end - begin) for begin, end in itertools.pairwise(edges))


def held(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of what server, worker and TMPDIR hold: the first and last tenth of the time, and the growth."""
    begin = found["window"][0] + min(60.0, found["seconds"] / 5)
    samples = [sample for sample in found["samples"] if sample["time"] >= begin]
    series = {f"{who}, {name}": [one[who][name] for one in samples] for who in ("server", "worker") for name in _NAMES}
    series["files in TMPDIR"] = [float(one["files"]) for one in samples]
    times, workers = [one["time"] for one in samples], [one["workers"] for one in samples]
    return {
        name: dict(zip(("first", "last"), footprint.tenths(values), strict=True))
        | {"growth": footprint.growth(times, values, workers)}
        for name, values in series.items()
        if values
    }


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The pace beside what was expected, and what is held at the end beside the beginning."""
    table = [
        {"figure": "seconds", "measured": found["seconds"]},
        {"figure": "workers started", "measured": float(found["started"])},
        {"figure": "workers killed", "measured": float(found["killed"])},
        {"figure": f"same bits: {'yes' if found.get('same_bits') else 'NO'}"},
    ]
    if "ratio" in found:
        pace, expected = (found[name] * _BATCH / found["seconds"] for name in ("steps_in_window", "expected_steps"))
        less_starts = pace * found["ratio_less_starts"] / found["ratio"]
        for name, value in {"examples/s": pace, "examples/s, less starts": less_starts}.items():
            table.append({"figure": name, "measured": value, "beside": expected, "ratio": value / expected})
        for count, steps in enumerate(found["reference"]["steps_per_second"], 1):
            table.append({"figure": f"examples/s of {count} in peace", "measured": steps * _BATCH})
    for name, values in held(found).items():
        row = {"figure": name, "measured": values["last"], "beside": values["first"], "growth": values["growth"]}
        table.append(row)
    return [dict.fromkeys(("figure", "measured", "beside", "ratio", "growth")) | row for row in table]


def faults(found: dict[str, Any]) -> list[str]:
    """Other bits, a pace that is not reached, what grows, and whoever did not end as it should."""
    if found["stuck"] or "reference" not in found:
        return [found["stuck"] or "no step was published"]
    broken = [found["reference"]["stuck"]] if found["reference"]["stuck"] else []
    if not found["same_bits"]:
        broken.append("the last checkpoint has other bits than that of the run in peace")
    if any(found["codes"]) or any(found["reference"]["codes"]):
        broken.append(f"exit codes {found['codes']}, in peace {found['reference']['codes']}")
    if found.get("ratio_less_starts", 0.0) < _LEAST_RATIO:
        ratios = f"{found.get('ratio_less_starts', 0.0):.3f} ({found.get('ratio', 0.0):.3f} with the starts)"
        broken.append(f"{ratios} of the examples/s that the live workers make in peace, not {_LEAST_RATIO}")
    for name, values in held(found).items():
        if name.endswith("shared_mb") or (name.endswith("heap_mb") and found["seconds"] < _JUDGED_SECONDS):
            continue
        is_memory = name.endswith("heap_mb")
        allowed = _MORE_MEMORY * values["first"] if is_memory else _OF_ONE_WORKER + _LEFT_BY_EACH * found["killed"]
        if values["growth"] > allowed:
            broken.append(f"{name}: grew by {values['growth']:.1f}, from {values['first']:.1f} to {values['last']:.1f}")
    return broken


class _Stage:
    """A server and its workers, and what is seen of them."""

    def __init__(self, cluster: Cluster, model: Sequence[str], steps: int) -> None:
        self._cluster = cluster
        self._folder = cluster.folder / "run"
        self._address = f"ipc://{cluster.temporary}/s"
        plan = ["--steps", str(steps), "--report-every", "1", "--checkpoint-every", "1000000000", *model]
        self.server = cluster.start("server", "--listen", self._address, "--run-dir", str(self._folder), *plan)
        self.workers: list[Worker] = []
        self.published = Published(self._folder)
        self.samples: list[dict[str, Any]] = []

    def add(self) -> None:
        """Start another worker."""
        words = ["--server", self._address, "--processes", "1", "--log-format", "json"]
        self.workers.append(Worker(self._cluster.start("worker", *words), time.time()))

    def kill(self, worker: Worker) -> None:
        """The process that computes, and the one that would start it again."""
        worker.killed = time.time()
        parent = worker.program.process.pid
        with contextlib.suppress(ProcessLookupError):
            # So that it starts nobody meanwhile.
            os.kill(parent, signal.SIGSTOP)
        for pid in [*_children(parent), parent]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server, and workers that do not know it yet: the others hear of it."""
        for program in [self.server, *(worker.program for worker in self.present() if worker.joined is None)]:
            os.kill(program.process.pid, signal.SIGTERM)

    def present(self) -> list[Worker]:
        """Those that were not killed, the first of all first."""
        return [worker for worker in self.workers if worker.killed is None]

    def watch(self, now: float) -> None:
        """See who has joined, and once a second what is held."""
        self.published.look()
        for worker in self.present():
            if worker.joined is None and "joined run" in worker.program.text:
                worker.joined = now
                with contextlib.suppress(OSError):
                    pids = [worker.program.process.pid, *_children(worker.program.process.pid)]
                    worker.start_cpu = sum(map(footprint.cpu_seconds, pids))
        if not self.samples or now - self.samples[-1]["time"] >= _LOOK_SECONDS:
            first = _children(self.workers[0].program.process.pid)
            with contextlib.suppress(OSError, IndexError):
                held = {"server": footprint.look(self.server.process.pid), "worker": footprint.look(first[0])}
                files = {"files": sum(1 for _ in self._cluster.temporary.rglob("*"))}
                workers = sum(worker.joined is not None for worker in self.present())
                self.samples.append({"time": now, "workers": workers, **held, **files})

    def until(self, condition: Callable[[], Any], what: str, seconds: float) -> None:
        """Raises Stuck, also where the server has ended."""

        def is_so() -> bool:
            time.sleep(_POLL_SECONDS)
            self.watch(time.time())
            return bool(condition()) or self.server.code is not None

        self._cluster.until(is_so, what, seconds)
        if not condition():
            raise Stuck(f"the server has ended before {what}; give it more time\n{self._cluster.last_words()}")

    def until_over(self) -> None:
        """Until all have ended that were not killed."""
        present = [self.server, *(worker.program for worker in self.present())]
        self._cluster.until(lambda: all(one.code is not None for one in present), "the end of the run", _END_SECONDS)

    def until_version(self, version: int) -> None:
        self.until(lambda: self.published.look() >= version, f"version {version}", _LONGEST_SECONDS)

    def live(self, end: float) -> list[Span]:
        return [(one.joined, one.killed or end) for one in self.workers if one.joined is not None]

    def codes(self) -> list[int | None]:
        return [self.server.code, *(worker.program.code for worker in self.present() if worker.joined is not None)]

    def digest(self, version: int) -> str | None:
        path = self._folder / "checkpoints" / f"step-{version:08}.safetensors"
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _change(stage: _Stage, chance: random.Random) -> int:
    """Add a worker or kill one that is not the first; returns how many were killed."""
    present = stage.present()
    # All that there may be at first: what a server has for that many it keeps, and would seem to grow later.
    is_beginning = len(stage.workers) < _MOST
    if is_beginning or len(present) == 1 or (len(present) < _MOST and chance.random() < 0.5):
        stage.add()
        return 0
    stage.kill(chance.choice(present[1:]))
    return 1


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
    return []
