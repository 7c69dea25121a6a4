"""Messages that somebody has tampered with are sent to the servers of a run: who notices?

Two servers and a worker that trains with them (`beside`); a fuzzer (`fuzzer`) sends to both servers, in stretches with
pauses between them, in turn by connections that have made no handshake and by some that have. It runs at the lowest
priority, on the servers' core, at most --rate messages a second: what is measured is what an answer costs a server, not
how two cores are shared.

    beside/alone  examples/s of the worker during a stretch, by the mean of those in the pauses before and after it;
                  the median over the stretches
    memory        of each server, at the end by when a tenth of the messages had been sent, but at least two stretches
    us            processor time of the servers for a message, their own work for the run apart

Then the run is stopped, and made again in peace up to the same version.
"""

import argparse
import statistics
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from exchange.turns import Program
from programs import environment

from faults.beside import BATCH, MODEL, Good, cores_beside, in_peace
from faults.cluster import Cluster, Stuck
from faults.valid import KINDS

__all__ = ["HELP", "add_options", "faults", "rows", "run"]

HELP = "tampered messages to the servers of a run, before and after the handshake"

_PHASES = ("before", "after")
_LEAST_PACE, _MOST_DRIFT = 0.9, 0.05
_SLOWEST = 50
_CONNECT_SECONDS = 60.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=1_000_000, help="in all")
    parser.add_argument("--rate", type=float, default=1500.0, help="messages a second, at most")
    parser.add_argument("--stretches", type=int, default=20, help="with a pause before and after each")
    parser.add_argument("--pause", type=float, default=4.0, metavar="SECONDS")
    parser.add_argument("--keys", action="store_true", help="with keys; the fuzzer's is allowed")


def run(options: argparse.Namespace) -> dict[str, Any]:
    with Cluster() as cluster:
        folder = cluster.folder / "keys" if options.keys else None
        good = Good(cluster, keys=folder)
        command = ["faults.fuzzer", "--server", good.address, "--seed", str(options.seed)]
        command += ["--keys", str(folder), "--key", "worker"] if folder is not None else []
        found: dict[str, Any] = {"messages": options.messages, "keys": options.keys, "stretches": [], "stuck": ""}
        variables = environment()
        with Program(command, variables=variables, prefix=("nice", "-n", "19"), cores=cores_beside()) as fuzzer:
            try:
                _all_stretches(good, fuzzer, options, found)
            except (RuntimeError, Stuck) as error:
                found["stuck"] = str(error)
        found["there"] = good.are_there
        found["last_words"] = "" if found["there"] else cluster.last_words()
        if found["there"]:
            found["refused"] = good.state().get("refused", {})
            found["version"], digest, found["codes"] = good.end()
            found["same_bits"] = digest is not None and digest == in_peace(cluster, found["version"], MODEL)
        return found


def _all_stretches(good: Good, fuzzer: Program, options: argparse.Namespace, found: dict[str, Any]) -> None:
    size = max(1, options.messages // options.stretches)
    held, pace, spent = good.held(), _pace(good, options.pause), 0.0
    for number in range(options.stretches):
        phase = _PHASES[number % 2]
        before, since, version = good.held(), time.monotonic(), good.version()
        fuzzer.tell({"first": number * size, "count": size, "phase": phase, "rate": options.rate})
        said = fuzzer.answer(_CONNECT_SECONDS + size / _SLOWEST)
        seconds = time.monotonic() - since
        beside = (good.version() - version) * BATCH / seconds
        held = good.held()
        used = sum(held.seconds) - sum(before.seconds)
        # Their work for the run: as much an example as in the pauses.
        quiet = good.held()
        pace_before, pace = pace, _pace(good, options.pause)
        spent = (sum(good.held().seconds) - sum(quiet.seconds)) / (pace * options.pause)
        found["stretches"].append(
            {
                "phase": phase,
                "seconds": seconds,
                "beside": beside,
                "alone": statistics.mean((pace_before, pace)),
                "held": asdict(held),
                "us": 1e6 * (used - spent * beside * seconds) / size,
                **said,
            }
        )


def _pace(good: Good, seconds: float) -> float:
    """Examples a second, with nothing beside it."""
    version, since = good.version(), time.monotonic()
    time.sleep(seconds)
    return (good.version() - version) * BATCH / (time.monotonic() - since)


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    table = []
    for phase in _PHASES:
        stretches = [one for one in found["stretches"] if one["phase"] == phase]
        if not stretches:
            continue
        answers = _sum(stretches, "answers")
        errors = {code: count for code, count in answers.items() if code not in KINDS}
        drift = max(_drifts(found))
        table.append(
            {
                "handshake": phase,
                "messages": sum(one["sent"] for one in stretches),
                "withheld": sum(_sum(stretches, "withheld").values()),
                "a second": round(sum(one["sent"] for one in stretches) / sum(one["seconds"] for one in stretches)),
                "errors": sum(errors.values()),
                "of kinds": len(errors),
                "unanswered": sum(len(one["faults"]) for one in stretches),
                "beside/alone": _ratio(stretches),
                "us": statistics.median(one["us"] for one in stretches),
                "memory": drift,
                "same bits": "yes" if found.get("same_bits") else "no",
            }
        )
    return table


def faults(found: dict[str, Any]) -> list[str]:
    broken = [found["stuck"]] if found["stuck"] else []
    if not found["there"]:
        return [*broken, f"a process of the run has ended: {found['last_words']}"]
    broken += [fault for one in found["stretches"] for fault in one["faults"]]
    if any(found["codes"]):
        broken.append(f"exit codes at the end: {found['codes']}")
    if not found["same_bits"]:
        broken.append(f"version {found['version']} has other bits than the run in peace")
    if found["stretches"] and (ratio := _ratio(found["stretches"])) < _LEAST_PACE:
        broken.append(f"the worker has {ratio:.2f} of its pace beside the fuzzer")
    for shard, drift in enumerate(_drifts(found), 1):
        if drift > 1 + _MOST_DRIFT:
            broken.append(f"the server of shard {shard} has {drift:.2f} times the memory that it had")
    return broken


def _drifts(found: dict[str, Any]) -> list[float]:
    """Of each server's memory: the last figure by the one after a tenth of the messages, but at least two stretches."""
    held = [one["held"]["memory"] for one in found["stretches"]]
    if len(held) < len(_PHASES):
        return [1.0]
    warm = held[max(len(_PHASES), len(held) // 10) - 1]
    return [last / first for last, first in zip(held[-1], warm, strict=True)]


def _ratio(stretches: list[dict[str, Any]]) -> float:
    return statistics.median(one["beside"] / one["alone"] for one in stretches)


def _sum(stretches: list[dict[str, Any]], name: str) -> Counter[str]:
    return sum((Counter(one[name]) for one in stretches), Counter())
