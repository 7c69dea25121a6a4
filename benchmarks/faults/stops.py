"""Programs are asked to stop: are they gone in time, with the right exit code, and with all that they made?

Each stop has programs of its own, started as a user does, and a TMPDIR of its own. One of SETUPS is brought to where it
is to be stopped; then SIGTERM or SIGINT goes to its programs in one of these orders:

    first first  to the first one (the server, or `train`); the others end because their run does
    last first   to the last one (the workers); then, when that has ended, to the one before it
    all          to all at once, as from a terminal that is closed
    while starting  to all at once, up to three seconds after they were started

    seconds    from the signal to the end of the last process that has to end of it
    left       processes, sockets and other files in TMPDIR, files in /dev/shm, unfinished files in the run's folder,
               that are still there then

A program that gets its signal while Python itself starts, before it listens to any, ends of the signal.
"""

import argparse
import os
import random
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.cluster import Cluster, Program, Stuck

__all__ = [
    "HELP",
    "SETUPS",
    "SHARED_MEMORY",
    "Setup",
    "Stop",
    "add_options",
    "draw",
    "faults",
    "left_in",
    "one_stop",
    "rows",
    "run",
]

HELP = "SIGTERM and SIGINT to servers and workers: in time, with exit code 0, and nothing left"

_ALLOWED_SECONDS = 5.0
_PATIENCE_SECONDS = 60.0
# Until then it is measured how slow a slow one is.
_LONGEST_SECONDS = 30.0
_LONGEST_START_SECONDS = 3.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SHARED_MEMORY = Path("/dev/shm")

FIRST_FIRST, LAST_FIRST, ALL, STARTING = "first first", "last first", "all", "while starting"
MODEL = ["--data", "mnist-5k", "--batch-size", "256", "--microbatch", "32"]
_PLAN = ["--steps", "1000000", "--report-every", "1", "--run-dir", "run"]
_TRAINS, _WAITS_FOR_WORKERS, _WAITS_FOR_SERVER = "", "start workers with", "waiting for a server"


@dataclass(frozen=True, slots=True)
class Setup:
    """Programs that belong together.

    programs  words of `ps-vae`, in the order in which they are started; {address} is where the server is
    ready     what one of them has said when it may be stopped; empty: a step has been published
    times     how often: of several processes each
    orders    in which they are
    """

    programs: tuple[str, ...]
    ready: str
    orders: tuple[str, ...]
    times: int = 1


_SERVER = "server --listen {address}"
_WORKERS = "worker --server {address} --processes 2"
_ORDERS = (FIRST_FIRST, LAST_FIRST, ALL, STARTING)
_ALONE = (FIRST_FIRST, STARTING)
SETUPS = {
    "train": Setup(("train --no-pictures",), _TRAINS, _ALONE),
    "train, followed": Setup(("train --no-pictures --shards 2 --replicas 1",), _TRAINS, _ALONE),
    "server, workers": Setup((_SERVER, _WORKERS), _TRAINS, _ORDERS),
    "server, workers as one": Setup((_SERVER, f"{_WORKERS} --as-one"), _TRAINS, _ORDERS),
    "supervised server, workers": Setup((f"{_SERVER} --supervise --shards 2", _WORKERS), _TRAINS, _ORDERS),
    "followed servers, workers": Setup((f"{_SERVER} --shards 2 --replicas 1", _WORKERS), _TRAINS, _ORDERS),
    "server without workers": Setup((_SERVER,), _WAITS_FOR_WORKERS, _ALONE),
    "followed servers without workers": Setup((f"{_SERVER} --shards 2 --replicas 1",), "follower of shard 2", _ALONE),
    "server without its second shard": Setup(
        (f"{_SERVER} --remote-shards 1", _WORKERS), "the run waits for shard 2", (FIRST_FIRST, LAST_FIRST, ALL), 2
    ),
    "workers without a server": Setup((_WORKERS,), _WAITS_FOR_SERVER, _ALONE),
    "workers as one without a server": Setup((f"{_WORKERS} --as-one",), _WAITS_FOR_SERVER, _ALONE),
    "shard without a server": Setup(("server --join {address}",), "joining", _ALONE),
}


@dataclass(frozen=True, slots=True)
class Stop:
    """One of SETUPS, one of its orders, a signal, and how long after the start (`while starting`), in seconds."""

    setup: str
    order: str
    signal: signal.Signals
    after: float = 0.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stops", type=int, default=100)


def draw(number: int, chance: random.Random) -> list[Stop]:
    """So many stops: every setup and order in turn, with both signals, before any comes again."""
    ways = [(name, order) for name, setup in SETUPS.items() for order in setup.orders]
    stops: list[Stop] = []
    while len(stops) < number:
        for turn, (name, order) in enumerate(ways):
            which = _SIGNALS[(turn + len(stops) // len(ways)) % 2]
            stops.append(Stop(name, order, which, chance.uniform(0.0, _LONGEST_START_SECONDS)))
    return stops[:number]


def run(options: argparse.Namespace) -> dict[str, Any]:
    chance = random.Random(options.seed)
    return {"stops": [one_stop(stop) for stop in draw(options.stops, chance)]}


def one_stop(stop: Stop, model: Sequence[str] = MODEL) -> dict[str, Any]:
    """Start, stop, and look what is left.

    seconds  the longest of its signals took
    codes    of each program; `wrong_codes`: those that they should not have
    left     names
    stuck    what did not happen, if so
    """
    setup = SETUPS[stop.setup]
    before = set(SHARED_MEMORY.iterdir())
    with Cluster() as cluster:
        stuck, seconds = "", 0.0
        try:
            programs = _start(cluster, setup, model, stop)
            for group in _groups(stop.order, programs):
                seconds = max(seconds, _end(cluster, group, stop))
        except Stuck as error:
            stuck = str(error)
        codes = [program.code for program in cluster.programs]
        allowed = {0, -stop.signal, 128 + stop.signal} if stop.order == STARTING else {0}
        left = left_in(cluster, before)
        wrong = [code for code in codes if code not in allowed]
        return {
            **{"setup": stop.setup, "order": stop.order, "signal": stop.signal.name, "after": stop.after},
            **{"seconds": seconds, "codes": codes, "wrong_codes": wrong, "left": left, "stuck": stuck},
            "said": cluster.last_words() if stuck or wrong or left or seconds > _ALLOWED_SECONDS else "",
        }


def left_in(cluster: Cluster, before: set[Path]) -> list[str]:
    """Processes and files that are still there; `before`: what was in SHARED_MEMORY when it began."""
    return [
        *(" ".join(words) for words in cluster.alive().values()),
        *(str(path.relative_to(cluster.folder)) for path in cluster.temporary.rglob("*")),
        *(str(path.relative_to(cluster.folder)) for path in cluster.folder.rglob("*.partial")),
        *(str(path.relative_to(cluster.folder)) for path in cluster.folder.rglob("server.lock")),
        *_stays(set(SHARED_MEMORY.iterdir()) - before),
    ]


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each setup and order."""
    table: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for stop in found["stops"]:
        table.setdefault((stop["setup"], stop["order"]), []).append(stop)
    return [
        {
            "programs": setup,
            "signal": order,
            "stops": len(stops),
            "seconds": statistics.median(stop["seconds"] for stop in stops),
            "longest": max(stop["seconds"] for stop in stops),
            "wrong codes": sum(len(stop["wrong_codes"]) for stop in stops),
            "left": sum(len(stop["left"]) for stop in stops),
        }
        for (setup, order), stops in table.items()
    ]


def faults(found: dict[str, Any]) -> list[str]:
    """Whoever took too long, ended otherwise, or left something."""
    broken = []
    for stop in found["stops"]:
        what = f"{stop['setup']}, {stop['signal']} {stop['order']}"
        what += f" after {stop['after']:.2f} s" if stop["order"] == STARTING else ""
        if stop["stuck"]:
            broken.append(f"{what}: {stop['stuck']}")
            continue
        if stop["seconds"] > _ALLOWED_SECONDS:
            broken.append(f"{what}: took {stop['seconds']:.2f} s\n{stop['said']}")
        if stop["wrong_codes"]:
            broken.append(f"{what}: exit codes {stop['codes']}\n{stop['said']}")
        if stop["left"]:
            broken.append(f"{what}: left {', '.join(stop['left'])}\n{stop['said']}")
    return broken


def _start(cluster: Cluster, setup: Setup, model: Sequence[str], stop: Stop) -> list[Program]:
    address = f"ipc://{cluster.temporary}/s"
    programs = []
    for line in setup.programs:
        words = line.format(address=address).split()
        trains = words[0] == "train" or (words[0] == "server" and "--join" not in words)
        programs.append(cluster.start(*words, *([*model, *_PLAN] if trains else [])))
    if stop.order == STARTING:
        begun = time.monotonic()
        cluster.until(lambda: time.monotonic() - begun >= stop.after, "time passes", _PATIENCE_SECONDS)
    else:
        published = cluster.folder / "run" / "metrics.jsonl"
        if setup.ready:
            cluster.until(lambda: _is_ready(setup, programs), setup.ready, _PATIENCE_SECONDS)
        else:
            cluster.until(published.exists, "the first step", _PATIENCE_SECONDS)
    return programs


def _is_ready(setup: Setup, programs: Sequence[Program]) -> bool:
    return any(one.text.count(setup.ready) >= setup.times for one in programs)


def _groups(order: str, programs: Sequence[Program]) -> list[list[Program]]:
    """Who gets the signal at the same time; those that end in consequence get none."""
    if order == FIRST_FIRST:
        return [[programs[0]]]
    if order == LAST_FIRST:
        return [[program] for program in reversed(programs)]
    return [list(programs)]


def _end(cluster: Cluster, group: Sequence[Program], stop: Stop) -> float:
    waited_for = cluster.programs if stop.order == FIRST_FIRST else group
    begun = time.monotonic()
    for program in group:
        # One that has ended is its own fault, which its code shows.
        if program.code is None:
            os.kill(program.process.pid, stop.signal)
    cluster.until(lambda: all(one.code is not None for one in waited_for), "their end", _LONGEST_SECONDS)
    return time.monotonic() - begun


def _stays(files: set[Path]) -> list[str]:
    """Those that are still there a second later: other programs of this machine make some that go at once."""
    if files:
        time.sleep(1.0)
    return [str(path) for path in files if path.exists()]
