"""Server processes are killed: what does a kill cost, in time and in steps, and does the run end with its bits?

Each kill has a run of its own: `start-server --supervise --shards 3 --replicas 1`, `start-worker --processes 2`, bsp,
on one machine. When every shard has a follower that is ready, and the run has come to a random version, one of its
server processes, drawn at random, gets SIGKILL. The supervised first server, and followers in the place of lost ones,
are started again by the programs themselves; nobody else does anything.

    without progress   the longest time between one published version and the next, after the kill; the same in a run
                       without a kill is what the machine does by itself
    whole again        from the kill until every shard has a follower that is ready; None where the run ended before
    computed again     steps that were published a second time

--checkpoints-only has --replicas 0. The first server then comes back from its newest checkpoint. Where another shard is
killed the run fails, says so and ends, and is started again with --resume, workers too, as by whoever looks after it.
At most one interval of checkpoints is computed again, and what was done while a checkpoint was on its way to the disk.
"""

import argparse
import datetime
import hashlib
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from faults.cluster import Cluster, Program, Stuck, observing
from faults.published import Published, longest_gap, steps_again
from faults.roles import COORDINATOR, FOLLOWER, LEADER, Role, roles

__all__ = ["HELP", "MNIST", "Job", "Kill", "add_options", "faults", "one_run", "rows", "run"]

HELP = "SIGKILL to a server process of a run with followers: time without progress, and bits"

MNIST = ["--data", "mnist-5k", "--batch-size", "256", "--microbatch", "32"]
_KINDS = {"any": (COORDINATOR, LEADER, FOLLOWER), "shards": (LEADER, FOLLOWER), "coordinator": (COORDINATOR,)}
# Of the run's steps: between these shares a victim is hit.
_EARLIEST, _LATEST = 0.1, 0.5
_START_SECONDS, _RUN_SECONDS, _FAILING_SECONDS = 60.0, 180.0, 10.0
_ASK_SECONDS = 0.1
# Median time without progress that is allowed.
_ALLOWED_SECONDS = {LEADER: 2.0, FOLLOWER: 2.0, COORDINATOR: 5.0}


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained, and by whom.

    model  words of `start-server`
    every  steps from one checkpoint to the next
    """

    model: tuple[str, ...] = tuple(MNIST)
    steps: int = 1200
    every: int = 200
    shards: int = 3
    replicas: int = 1
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Kill:
    """Who is hit, and when: one of `kinds` as `choice` says, at `version`."""

    kinds: tuple[str, ...]
    version: int
    choice: random.Random


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=20, help="each in a run of its own")
    parser.add_argument("--which", choices=tuple(_KINDS), default="any", help="who is hit")
    parser.add_argument("--steps", type=int, default=Job().steps, help="of a run")
    parser.add_argument("--checkpoints-only", action="store_true", help="without followers")
    parser.add_argument("--checkpoint-every", type=int, default=Job().every, metavar="STEPS")


def run(options: argparse.Namespace) -> dict[str, Any]:
    replicas = 0 if options.checkpoints_only else 1
    job = Job(steps=options.steps, every=options.checkpoint_every, replicas=replicas)
    chance = random.Random(options.seed)
    peace = one_run(job)
    kills = []
    for _ in range(options.kills):
        version = int(job.steps * chance.uniform(_EARLIEST, _LATEST))
        kills.append(one_run(job, Kill(_KINDS[options.which], version, chance)))
    for one in kills:
        one["same_bits"] = one["digest"] is not None and one["digest"] == peace["digest"]
    return {"replicas": replicas, "every": job.every, "steps": job.steps, "peace": peace, "kills": kills}


def one_run(job: Job, kill: Kill | None = None) -> dict[str, Any]:
    """Train once, with a kill or without.

    victim             kind, shard and process id of who was killed; None: nobody
    at                 the version that was published last when it happened
    without_progress   s
    whole_again        s; None where it was not to be seen
    computed_again     steps
    while_writing      the most steps that were published while a checkpoint was written
    digest             of the last checkpoint; None where the run did not come so far
    restarted_workers  that the experiment did not start itself
    stuck              what did not happen, if so
    """
    with Cluster() as cluster:
        run = _Run(cluster, job)
        stuck = ""
        try:
            run.start()
            if kill is not None:
                run.hit(kill)
            run.end()
        except Stuck as error:
            stuck = str(error)
        return run.found() | {"stuck": stuck}


class _Run:
    """One run, until it ends."""

    def __init__(self, cluster: Cluster, job: Job) -> None:
        self._cluster, self._job = cluster, job
        self._folder = cluster.folder / "run"
        self._published = Published(self._folder)
        self._address = f"ipc://{cluster.temporary}/s"
        self._victim: dict[str, Any] | None = None
        self._at, self._killed_at, self._whole_at = 0, 0.0, 0.0
        self._servers: list[Program] = []
        self._workers: list[Program] = []

    def start(self) -> None:
        """Until the first step has been published; whoever is to follow does so before."""
        job = self._job
        plan = ["--steps", str(job.steps), "--checkpoint-every", str(job.every), "--report-every", "1", *job.model]
        self._serve(*plan)
        if job.replicas:
            with observing(self._address) as ask:
                self._until(
                    self._now_and_then(lambda: self._is_whole(ask())), "a follower of each shard", _START_SECONDS
                )
        self._work()
        self._until(lambda: self._published.look() > 0, "the first step", _START_SECONDS)

    def hit(self, kill: Kill) -> None:
        """Kill a server process as soon as the run is where it has to be for that, and watch it recover."""
        with observing(self._address) as ask:
            self._until(lambda: self._published.look() >= kill.version, f"version {kill.version}", _RUN_SECONDS)
            self._until(self._now_and_then(lambda: self._is_whole(ask())), "a follower of each shard", _START_SECONDS)
            pid, role = self._draw(kill)
            self._at = self._published.look()
            self._killed_at = time.time()
            os.kill(pid, signal.SIGKILL)
            self._victim = {"kind": role.kind, "shard": role.shard, "process": pid}
            if self._job.replicas:
                # The old state is not taken for the new one: whoever was hit is missing at first.
                self._until(self._now_and_then(lambda: not self._is_whole(ask())), "the loss", _START_SECONDS)
                self._until(self._now_and_then(lambda: self._is_whole(ask())), "a follower again", _RUN_SECONDS)
                self._whole_at = 0.0 if self._is_over() else time.time()

    def end(self) -> None:
        """Until all programs have ended, with what is started again where a run without followers has lost a shard."""
        victim = self._victim
        if victim is not None and not self._job.replicas and victim["kind"] != COORDINATOR:
            self._until(self._is_over, "the end of a run that has lost a shard", _FAILING_SECONDS)
            self._serve("--resume")
            self._work()
        self._until(self._is_over, "the end of the run", _RUN_SECONDS)
        self._published.look()

    def found(self) -> dict[str, Any]:
        self._published.look()
        seen = self._published.seen
        told = [line for worker in self._workers for line in worker.lines()]
        joined = {line["process"] for line in told if line["event"] == "joined"}
        expected = self._job.workers * len(self._workers)
        last = self._folder / "checkpoints" / f"step-{self._job.steps:08}.safetensors"
        return {
            "victim": self._victim,
            "at": self._at,
            "without_progress": longest_gap(seen, self._killed_at),
            "whole_again": self._whole_at - self._killed_at if self._whole_at else None,
            "computed_again": steps_again(seen),
            "while_writing": self._while_writing(),
            "digest": hashlib.sha256(last.read_bytes()).hexdigest() if last.exists() else None,
            "restarted_workers": sum(line["event"] == "process-killed" for line in told)
            + max(0, len(joined) - expected),
            "codes": [program.code for program in self._cluster.programs],
        }

    def _serve(self, *words: str) -> None:
        job = self._job
        cluster = ["--shards", str(job.shards), "--replicas", str(job.replicas), "--await-workers", str(job.workers)]
        where = ["--listen", self._address, "--run-dir", str(self._folder), "--log-format", "json", "--supervise"]
        self._servers.append(self._cluster.start("server", *where, *cluster, *words))

    def _work(self) -> None:
        words = ["--server", self._address, "--processes", str(self._job.workers), "--log-format", "json"]
        self._workers.append(self._cluster.start("worker", *words))

    def _draw(self, kill: Kill) -> tuple[int, Role]:
        alive = self._cluster.alive()
        known = roles(self._servers[-1].lines())
        victims = sorted((role.shard, role.kind, pid) for pid, role in known.items() if pid in alive)
        victims = [victim for victim in victims if victim[1] in kill.kinds]
        if not victims:
            raise Stuck(f"there is nobody to kill\n{self._cluster.last_words()}")
        shard, kind, pid = kill.choice.choice(victims)
        return pid, Role(kind, shard)

    def _is_whole(self, state: dict[str, Any] | None) -> bool:
        """Every shard has a leader, and a follower where it is to have one."""
        if state is None:
            return False
        wanted = "ready" if self._job.replicas else "none"
        return all(shard["up"] and shard["follower"] == wanted for shard in state["shards"])

    def _is_over(self) -> bool:
        return all(program.code is not None for program in self._cluster.programs)

    def _until(self, condition: Callable[[], Any], what: str, seconds: float) -> None:
        """The end of the run, too, is an end of waiting; versions are read before a new server drops them."""

        def is_so() -> bool:
            self._published.look()
            return bool(condition()) or self._is_over()

        self._cluster.until(is_so, what, seconds)

    def _now_and_then(self, condition: Callable[[], bool]) -> Callable[[], bool]:
        """`condition`, asked ten times a second: who is asked has other things to do."""
        last = 0.0

        def is_so() -> bool:
            nonlocal last
            if time.monotonic() - last < _ASK_SECONDS:
                return False
            last = time.monotonic()
            return condition()

        return is_so

    def _while_writing(self) -> int:
        """The most steps from a checkpoint's version to the newest one when it was said to be on the disk."""
        most = 0
        for line in [line for server in self._servers for line in server.lines()]:
            if line["event"] == "checkpoint-written":
                said = datetime.datetime.fromisoformat(line["time"]).timestamp()
                newest = [version for at, version in self._published.seen if at <= said][-1:]
                most = max([most, *(version - line["version"] for version in newest)])
        return most


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each kind of victim, and one for the run in peace."""
    table = [_row("nobody", [found["peace"] | {"same_bits": True}])]
    for kind in (COORDINATOR, LEADER, FOLLOWER):
        if runs := _hit(found, kind):
            table.append(_row(kind, runs))
    return table


def faults(found: dict[str, Any]) -> list[str]:
    """What a run with faults owes to the one without."""
    broken = [f"the run in peace: {found['peace']['stuck']}"] if found["peace"]["stuck"] else []
    for number, one in enumerate(found["kills"], 1):
        who = "nobody" if one["victim"] is None else f"{one['victim']['kind']} of shard {one['victim']['shard']}"
        where = f"kill {number} ({who}, version {one['at']})"
        if one["stuck"]:
            broken.append(f"{where}: {one['stuck']}")
        elif not one["same_bits"]:
            broken.append(f"{where}: the last checkpoint has other bits")
        if one["restarted_workers"]:
            broken.append(f"{where}: {one['restarted_workers']} worker processes were started again")
        # What is published while a checkpoint is written is not in it.
        if not found["replicas"] and one["computed_again"] > found["every"] + one["while_writing"]:
            broken.append(f"{where}: {one['computed_again']} steps were computed again, {found['every']} are allowed")
    if found["replicas"]:
        for kind, allowed in _ALLOWED_SECONDS.items():
            runs = _hit(found, kind)
            median = statistics.median([one["without_progress"] for one in runs]) if runs else 0.0
            if median > allowed:
                broken.append(f"a {kind} that is killed: {median:.2f} s without progress (median), not {allowed:g}")
    return broken


def _hit(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in found["kills"] if one["victim"] is not None and one["victim"]["kind"] == kind]


def _row(who: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    gaps = [one["without_progress"] for one in runs]
    whole = [one["whole_again"] for one in runs if one["whole_again"] is not None]
    return {
        "killed": who,
        "runs": len(runs),
        "without progress s": statistics.median(gaps),
        "worst": max(gaps),
        "whole again s": statistics.median(whole) if whole else None,
        "computed again": max(one["computed_again"] for one in runs),
        "workers restarted": sum(one["restarted_workers"] for one in runs),
        "same bits": f"{sum(one['same_bits'] for one in runs)} of {len(runs)}",
    }
