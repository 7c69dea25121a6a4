"""Strangers come to the servers of a run, a thousand of a kind at once, and stay at the door: who notices?

    no key        ZeroMQ without a key
    unknown key   one that nobody has allowed
    revoked key   one that was allowed, came in, and is not allowed any more
    wrong server  an allowed key, and another server's public key: it would speak to that server alone
    rubbish       bytes that are no greeting
    half-open     half of a greeting, and nothing more

The run has keys (`beside`). Each kind comes in turn to the first server for --stretch seconds, with a pause of as long
before and after; they are a process of their own, on the servers' core, that has what these leave over of it: what
strangers compute themselves they compute on their own hosts. Who is sent away does not come again, unless --again says
after how long: ps_vae's own clients do so four to ten times a second.

    beside/alone  examples/s of the worker while they are there, by the mean of those in the pauses before and after;
                  the median over the rounds
    us            processor time of the servers for each of them, their own work for the run apart; the median
    descriptors   of both servers, the most while they were there, and what is left some seconds after
    MB            of both servers, some seconds after the last visit of that kind
"""

import argparse
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

from exchange.turns import Program
from programs import environment

from faults.beside import BATCH, Good, cores_beside, in_peace
from faults.cluster import Cluster, Stuck
from ps_vae.train.key_folder import KeyFolder

__all__ = ["HELP", "KINDS", "add_options", "faults", "rows", "run"]

HELP = "a thousand strangers of each kind at the door of a run with keys"

KINDS = ("no key", "unknown key", "revoked key", "wrong server", "rubbish", "half-open")
_LEAST_PACE, _MOST_DRIFT = 0.9, 0.05
# What ZeroMQ and the interpreter keep of what they once had.
_MORE_DESCRIPTORS = 8
_ANSWER_SECONDS, _LOOK_SECONDS = 120.0, 0.2
# A handshake that does not go on is given up after 5 s.
_LEAVE_SECONDS = 8.0
_REVOKED = "guest"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=1000, help="of each kind, at once")
    parser.add_argument("--rounds", type=int, default=3, help="in which each kind comes once")
    parser.add_argument("--stretch", type=float, default=8.0, metavar="SECONDS", help="that they stay")
    parser.add_argument("--again", type=float, default=0.0, metavar="SECONDS", help="0: never")


def run(options: argparse.Namespace) -> dict[str, Any]:
    with Cluster() as cluster:
        keys = cluster.folder / "keys"
        good = Good(cluster, keys=keys)
        folder = KeyFolder(keys)
        folder.create(_REVOKED)
        folder.allow(_REVOKED)
        found: dict[str, Any] = {"count": options.count, "visits": [], "stuck": "", "before": asdict(good.held())}
        command = ("faults.crowd", "--server", good.address, "--keys", str(keys), "--key", _REVOKED)
        with Program(command, variables=environment(), cores=cores_beside()) as crowd:
            try:
                # It comes in, and is thrown out: from then on its key is that of the third kind.
                crowd.tell({"kind": "given key", "count": 1, "seconds": 1.0, "again": 0.0})
                found["given_key"] = crowd.answer(_ANSWER_SECONDS)
                folder.revoke(_REVOKED)
                for _ in range(options.rounds):
                    for kind in KINDS:
                        found["visits"].append(_visit(good, crowd, kind, options))
            except (RuntimeError, Stuck) as error:
                found["stuck"] = str(error)
        time.sleep(_LEAVE_SECONDS)
        found["there"] = good.are_there
        found["last_words"] = "" if found["there"] else cluster.last_words()
        if found["there"]:
            found["after"] = asdict(good.held())
            found["refused"] = good.state().get("refused", {})
            found["version"], digest, found["codes"] = good.end()
            found["same_bits"] = digest is not None and digest == in_peace(cluster, found["version"])
        return found


def _visit(good: Good, crowd: Program, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    before = _stretch(good, options.stretch)
    crowd.tell({"kind": kind, "count": options.count, "seconds": options.stretch, "again": options.again})
    beside = _stretch(good, options.stretch)
    said = crowd.answer(_ANSWER_SECONDS)
    time.sleep(_LEAVE_SECONDS)
    left, after = good.held(), _stretch(good, options.stretch)
    alone = statistics.mean((before.pace, after.pace))
    usual = statistics.mean((before.seconds / before.pace, after.seconds / after.pace))
    return {
        "kind": kind,
        "beside": beside.pace,
        "alone": alone,
        "us": 1e6 * (beside.seconds - usual * beside.pace) / max(1, said["came"]),
        "most": beside.descriptors,
        "left": asdict(left),
        **said,
    }


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Some seconds: examples a second, the servers' processor time, and the most descriptors that they had."""

    pace: float
    seconds: float
    descriptors: int


def _stretch(good: Good, seconds: float) -> _Stretch:
    version, since, before, most = good.version(), time.monotonic(), good.held(), 0
    while time.monotonic() - since < seconds:
        most = max(most, sum(good.held().descriptors))
        time.sleep(_LOOK_SECONDS)
    pace = (good.version() - version) * BATCH / (time.monotonic() - since)
    return _Stretch(pace, sum(good.held().seconds) - sum(before.seconds), most)


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    table = []
    for kind in KINDS:
        visits = [visit for visit in found["visits"] if visit["kind"] == kind]
        if visits:
            table.append(
                {
                    "kind": kind,
                    "came": sum(visit["came"] for visit in visits),
                    "answered": sum(visit["answered"] for visit in visits),
                    "beside/alone": statistics.median(visit["beside"] / visit["alone"] for visit in visits),
                    "us": statistics.median(visit["us"] for visit in visits),
                    "descriptors": max(visit["most"] for visit in visits),
                    "left": max(sum(visit["left"]["descriptors"]) for visit in visits),
                    "MB": sum(visits[-1]["left"]["memory"]) / 1e6,
                }
            )
    return table


def faults(found: dict[str, Any]) -> list[str]:
    broken = [found["stuck"]] if found["stuck"] else []
    if not found["there"]:
        return [*broken, f"a process of the run has ended: {found['last_words']}"]
    if not found.get("given_key", {}).get("answered"):
        broken.append("the key that is revoked later was not let in at first")
    for row in rows(found):
        if row["answered"]:
            broken.append(f"{row['kind']}: {row['answered']} were answered")
        if row["beside/alone"] < _LEAST_PACE:
            broken.append(f"{row['kind']}: the worker has {row['beside/alone']:.2f} of its pace beside them")
    before, after = found["before"], found["after"]
    if sum(after["descriptors"]) > sum(before["descriptors"]) + _MORE_DESCRIPTORS:
        broken.append(f"descriptors of the servers: {before['descriptors']} before, {after['descriptors']} after")
    # The first round makes room for as many connections: that is not memory that is lost.
    first = found["visits"][len(KINDS) - 1]["left"]["memory"] if len(found["visits"]) > len(KINDS) else after["memory"]
    for shard, (was, now) in enumerate(zip(first, after["memory"], strict=True), 1):
        if now > (1 + _MOST_DRIFT) * was:
            broken.append(
                f"the server of shard {shard}: {was / 1e6:.1f} MB after the first visit, {now / 1e6:.1f} at last"
            )
    if any(found["codes"]):
        broken.append(f"exit codes at the end: {found['codes']}")
    if not found["same_bits"]:
        broken.append(f"version {found['version']} has other bits than the run in peace")
    return broken
