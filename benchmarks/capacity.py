"""How much one server process sustains, and how many workers one shard can feed.

    python benchmarks/capacity.py [--size 652824] [--workers 1 2 4 8 16 32 64] [--seconds 2] [--json]
    python benchmarks/capacity.py --memory [--size 50000000] [--steps 200]       what a server needs of it, see
                                                                                 `exchange.memory`

One server has one core to itself; the workers, which have no model and sleep for a millisecond in place of computing,
share the others. Each step takes a push from every worker, applies Adam, and answers every worker with the next
weights: an exchange each. From the CPU time that the server needs for one follows how many workers of a real model keep
it busy all the time: each makes one exchange in the time that it computes. That time is measured too (`ours.py`, one
core, the model of throughput.py), or given with --step-ms. Beyond that number they wait for it; another shard takes its
part of each exchange.

A minute and a half.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
from typing import Any

import programs
import report
from exchange.memory import memory, memory_table
from exchange.stub_run import StubRun
from exchange.stub_server import Task
from models import MODELS

LIBRARIES = ("numpy", "numba", "pyzmq", "msgpack")
TRANSPORTS = {"auto": "shared memory", "tcp": "tcp"}
WORKERS = (1, 2, 4, 8, 16, 32, 64)
ALIGNMENT = 16
MODEL = "relu"
SETTLE_SECONDS, START_SECONDS, POLL_SECONDS = 0.5, 60.0, 0.05
COMPUTE_SECONDS = 1e-3
FIRST_STEPS = 5


def main() -> int:
    words = _parser().parse_args()
    # What was started ends with us.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("ended by SIGTERM"))
    whole: dict[str, Any] = {"machine": report.machine(), "versions": report.versions(LIBRARIES)}
    if words.memory:
        whole["memory"] = memory(words.size or 50_000_000, words.steps, words.transport, _say)
        print(json.dumps(whole) if words.json else f"{_heading(whole)}\n\n{memory_table(whole['memory'])}")
        return 0
    size = ALIGNMENT * math.ceil((words.size or 652_824) / ALIGNMENT)
    step_seconds = words.step_ms / 1e3 if words.step_ms else _step_seconds()
    rows = [
        sustained(size, workers, transport, words.seconds, step_seconds)
        for transport in words.transport
        for workers in words.workers
    ]
    whole |= {"size": size, "step_seconds": step_seconds, "rows": rows}
    print(json.dumps(whole) if words.json else f"{_heading(whole)}\n\n{_table(whole)}")
    return 0


def sustained(size: int, workers: int, transport: str, seconds: float, step_seconds: float | None) -> dict[str, Any]:
    """What one server does in so many seconds.

    exchanges  pushes that were taken, a second
    bytes      of gradients and weights, a second, sent or read in shared memory
    busy       share of the time that the server's process was on a core
    cpu        of the server, seconds an exchange
    feeds      real workers that keep the server busy, if each computes for `step_seconds`
    """
    _say(f"{workers} workers, {TRANSPORTS[transport]} ...")
    cores = sorted(os.sched_getaffinity(0))
    own, others = cores[:1], cores[1:] or cores
    task = Task(size, 1, workers, update="adam", transport=transport)
    with StubRun(
        task,
        workers,
        variables=programs.environment(),
        compute_seconds=COMPUTE_SECONDS,
        local=transport == "auto",
        crowd=True,
        cores=(own, others),
    ) as run:
        _wait_for(run, workers)
        time.sleep(SETTLE_SECONDS)
        before = run.sample()
        time.sleep(seconds)
        after = run.sample()
        run.stop()
    elapsed = after["seconds"] - before["seconds"]
    count = after["count"] - before["count"]
    cpu = (after["cpu"] - before["cpu"]) / max(1, count)
    moved = after["pushed"] + after["pulled"] - before["pushed"] - before["pulled"]
    return {
        "workers": workers,
        "transport": transport,
        "exchanges": count / elapsed,
        "steps": (after["version"] - before["version"]) / elapsed,
        "bytes": moved / elapsed,
        "shared": (after["shared"] - before["shared"]) / elapsed,
        "busy": (after["cpu"] - before["cpu"]) / elapsed,
        "cpu": cpu,
        "feeds": step_seconds / cpu if step_seconds and cpu else None,
    }


def _wait_for(run: StubRun, workers: int) -> None:
    for _ in range(round(START_SECONDS / POLL_SECONDS)):
        sample = run.sample()
        if sample["workers"] == workers and sample["version"] >= FIRST_STEPS:
            return
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"{sample['workers']} of {workers} workers came within {START_SECONDS:g} s")


def _step_seconds() -> float | None:
    """Of a real worker's batch on one core of this machine; None where that cannot be measured."""
    cores = sorted(os.sched_getaffinity(0))[-1:]
    command = ("ours", "--model", MODEL, "--seconds", "2")
    answer = programs.run(command, cores=cores, variables=programs.environment(), timeout=120.0)
    pace = answer.get("examples_per_second")
    if pace is None:
        _say(f"a real worker could not be measured: {answer.get('failed')}; give --step-ms")
    return MODELS[MODEL].batch / pace if pace else None


def _table(whole: dict[str, Any]) -> str:
    rows = [
        {
            "transport": TRANSPORTS[row["transport"]],
            "workers": row["workers"],
            "exchanges/s": row["exchanges"],
            "GB/s": row["bytes"] / 1e9,
            "busy": row["busy"],
            "CPU ms an exchange": 1e3 * row["cpu"],
            "feeds workers": row["feeds"],
        }
        for row in whole["rows"]
    ]
    columns = {"transport": "", "workers": "d", "exchanges/s": ",.0f", "GB/s": ".2f", "busy": ".0%"}
    drawn = report.table(rows, {**columns, "CPU ms an exchange": ".3f", "feeds workers": ".1f"})
    computes = whole["step_seconds"]
    said = f"a real worker computes for {1e3 * computes:.2f} ms a step" if computes else "no real worker was measured"
    return f"{drawn}\n\n{whole['size']:,} parameters, Adam, one shard on one core; {said}"


def _heading(whole: dict[str, Any]) -> str:
    machine = whole["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in whole["versions"].items() if version)
    return f"{machine['cores']} cores of {machine['cpu']}, {machine['system']}; {libraries}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, metavar="N", help="parameters")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, metavar="N")
    parser.add_argument("--transport", choices=TRANSPORTS, nargs="+", default=tuple(TRANSPORTS))
    parser.add_argument("--seconds", type=float, default=2.0, help="of each row")
    parser.add_argument("--step-ms", type=float, help="what a real worker computes for (default: measured)")
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="of --memory at its full size")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
