"""A host is cut off from all others for a while: network namespaces, and no packet passes, either way.

On a host each are the first server (with --replicas 1 its followers too), two workers, and in the followed run a server
that leads the second shard. Nobody is told of a cut: connections stay, and nothing comes any more.

    worker       the first worker's host is cut off; the run goes on with the other one
    coordinator  the first server's is; nothing can go on, and then it does by itself. A third worker, on the host of
                 the second one, was started with a short --connect-timeout, and has to give up in time
    leader       the second shard's is; its follower leads, and when it is back it follows

    while cut    examples/s in the second half of the cut, by those before it
    after        the same, from when the run goes on until the next cut
    goes on s    seconds without a step, from the cut on; for the coordinator from when it is reached again
    gave up s    of the third worker, from the cut on

As root, with iproute2.
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from exchange.nodes import Node
from exchange.shaping import cut, heal, missing, network

from faults.beside import MODEL, digest, in_peace
from faults.cluster import Cluster, Program, Stuck
from faults.published import Published
from ps_vae.train.key_folder import KeyFolder

__all__ = ["HELP", "WAYS", "add_options", "faults", "rows", "run"]

HELP = "hosts of a run are cut off from the others for a while, as root"

WAYS = ("insecure", "keys", "followed")

_NEVER = str(10**9)
_QUIET_SECONDS, _START_SECONDS, _BACK_SECONDS, _END_SECONDS = 10.0, 90.0, 60.0, 60.0
# Who is cut off is missed when heartbeats are: every 2 s, and after 6 s at last.
_NOTICED_SECONDS = 8.0
_SLACK_SECONDS = 3.0
_IMPATIENT_SECONDS = 5.0
# Of the pace with two workers, that one of them alone has to have at least.
_LEAST_PACE = 0.35
_MOST_SECONDS = {"worker": 10.0, "coordinator": 10.0, "leader": 15.0}
_LOOK_SECONDS = 0.2


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=30.0, help="that a cut lasts")
    parser.add_argument("--only", choices=WAYS, help="one of the runs")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if (why := missing()) is not None:
        raise SystemExit(why)
    ways = WAYS if options.only is None else (options.only,)
    return {"seconds": options.seconds, "runs": [_one(way, options.seconds) for way in ways]}


def _one(way: str, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {"way": way, "cuts": [], "stuck": ""}
    with Cluster() as cluster, network(None, 4) as nodes:
        run = _Run(cluster, nodes, way)
        try:
            run.start()
            # Once the first server was cut off its own host has the second shard, too: the leader comes before.
            for who in ("worker", "leader", "coordinator") if way == "followed" else ("worker", "coordinator"):
                found["cuts"].append(run.without(who, seconds))
            found["version"], last, found["codes"] = run.end()
            found["same_bits"] = last is not None and last == in_peace(cluster, found["version"], MODEL)
        except Stuck as error:
            found["stuck"] = str(error)
    return found


class _Run:
    """Its programs, on their hosts."""

    def __init__(self, cluster: Cluster, nodes: list[Node], way: str) -> None:
        self._cluster, self._way = cluster, way
        self._folder = cluster.folder / "run"
        self._published = Published(self._folder)
        self._nodes = dict(zip(("coordinator", "worker", "other", "leader"), nodes, strict=True))
        self._safety, self._shown = ["--insecure"], ["--insecure"]
        if way == "keys":
            folder = KeyFolder(cluster.folder / "keys")
            folder.create("server")
            folder.create("worker")
            folder.allow("worker")
            self._safety = ["--keys", str(folder.path)]
            self._shown = [*self._safety, "--key", "worker"]
        self._address = ""
        self._servers: list[Program] = []
        self._workers: list[Program] = []

    def start(self) -> None:
        """Until the run has been going for a moment."""
        is_followed = self._way == "followed"
        plan = ["--steps", _NEVER, "--checkpoint-every", _NEVER, "--report-every", "1", *MODEL]
        shards = ["--remote-shards", "1", "--replicas", "1"] if is_followed else []
        run = ["--run-dir", str(self._folder), "--await-workers", "2", *shards, *plan]
        first = self._server("coordinator", *run)
        self._until(lambda: "listening on" in first.text, "the first server", _START_SECONDS)
        self._address = first.text.split("listening on ", 1)[1].split(";")[0]
        if is_followed:
            self._server("leader", "--join", self._address, "--connect-timeout", "300")
            for shard in (1, 2):
                text = f"follower of shard {shard} of 2 joined"
                self._until(lambda text=text: text in first.text, text, _START_SECONDS)
        for place in ("worker", "other"):
            self._worker(place, 300.0)
        self._until(lambda: self._published.look() > 0, "the first step", _START_SECONDS)
        self._wait(_QUIET_SECONDS)

    def without(self, who: str, seconds: float) -> dict[str, Any]:
        """Cut `who` off for so long, and see what the others do."""
        impatient = None
        if who == "coordinator":
            impatient = self._worker("other", _IMPATIENT_SECONDS)
            self._until(lambda: "joined run" in impatient.text, "the third worker", _START_SECONDS)
            self._wait(_QUIET_SECONDS)
        before = self._pace(time.time() - _QUIET_SECONDS, time.time())
        said = [len(program.text) for program in self._workers]
        began = time.time()
        with _cut(self._nodes[who]):
            gave_up = self._wait(seconds, until_ended=impatient)
        healed = time.time()
        stood = began if who != "coordinator" else healed
        self._until(lambda: self._first_after(stood + 0.05) is not None, "a step after the cut", _BACK_SECONDS)
        if who == "leader":
            self._until(self._follows_again, "the old leader as a follower", _BACK_SECONDS)
        if impatient is not None and gave_up is None:
            gave_up = self._wait(_BACK_SECONDS, until_ended=impatient)
        self._wait(_QUIET_SECONDS)
        first = self._first_after(stood + 0.05)
        told = [program.text[start:] for program, start in zip(self._workers, said, strict=True)]
        cut_off = self._workers[:1] if who == "worker" else self._workers[:2]
        return {
            "who": who,
            "before": before,
            "while_cut": self._pace(began + seconds / 2, healed),
            "after": self._pace(time.time() - _QUIET_SECONDS / 2, time.time()),
            "goes_on": self._longest_stand(began, healed) if who != "coordinator" else (first or 0.0) - healed,
            "said_so": all("waiting for a server" in text for text, _ in zip(told, cut_off, strict=False)),
            "gave_up": None if gave_up is None else gave_up - began,
            "code": None if impatient is None else impatient.code,
            "connect_timeout": None if impatient is None else _IMPATIENT_SECONDS,
        }

    def end(self) -> tuple[int, str | None, list[int | None]]:
        """The last version, its digest, and the exit codes of those who had to stay to the end."""
        self._servers[0].process.terminate()
        stayed = [*self._servers, *self._workers[:2]]
        self._cluster.until(lambda: all(one.code is not None for one in stayed), "the end", _END_SECONDS)
        version, last = digest(self._folder)
        return version, last, [one.code for one in stayed]

    def _server(self, place: str, *words: str) -> Program:
        node = self._nodes[place]
        listen = ["--listen", f"tcp://{node.address}:*", *self._safety]
        self._servers.append(self._cluster.start("server", *listen, *words, prefix=node.prefix))
        return self._servers[-1]

    def _worker(self, place: str, timeout: float) -> Program:
        words = ["--server", self._address, "--processes", "1", "--connect-timeout", str(timeout), *self._shown]
        self._workers.append(self._cluster.start("worker", *words, prefix=self._nodes[place].prefix))
        return self._workers[-1]

    def _follows_again(self) -> bool:
        # Another follower may have been started in the meantime; then it waits until it is needed.
        text = self._servers[1].text.rpartition("another server leads shard")[2]
        return "as follower of shard 2" in text or "not needed yet" in text

    def _until(self, condition: Callable[[], Any], what: str, seconds: float) -> None:
        self._cluster.until(lambda: condition() or self._has_broken(), what, seconds)
        if not condition():
            raise Stuck(f"a program has ended before {what}\n{self._cluster.last_words()}")

    def _has_broken(self) -> bool:
        return any(one.code is not None for one in [*self._servers, *self._workers[:2]])

    def _wait(self, seconds: float, *, until_ended: Program | None = None) -> float | None:
        """Look on for so long; when `until_ended` has ended, if it has."""
        end, ended = time.time() + seconds, None
        while time.time() < end:
            self._published.look()
            if until_ended is not None and ended is None and until_ended.code is not None:
                ended = time.time()
            time.sleep(_LOOK_SECONDS)
        return ended

    def _first_after(self, moment: float) -> float | None:
        self._published.look()
        return next((at for at, _ in self._published.seen if at > moment), None)

    def _pace(self, since: float, until: float) -> float:
        """Steps a second."""
        self._published.look()
        return sum(since < at <= until for at, _ in self._published.seen) / max(1e-9, until - since)

    def _longest_stand(self, since: float, until: float) -> float:
        times = [since, *(at for at, _ in self._published.seen if since < at <= until), until]
        return max(after - before for before, after in pairwise(times))


@contextlib.contextmanager
def _cut(node: Node) -> Iterator[None]:
    cut(node)
    try:
        yield
    finally:
        heal(node)


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "run": run["way"],
            "cut off": one["who"],
            "s": found["seconds"],
            "while cut": one["while_cut"] / one["before"] if one["before"] else None,
            "after": one["after"] / one["before"] if one["before"] else None,
            "goes on s": one["goes_on"],
            "said so": "yes" if one["said_so"] else "no",
            "gave up s": one["gave_up"],
            "same bits": "yes" if run.get("same_bits") else "no",
        }
        for run in found["runs"]
        for one in run["cuts"]
    ]


def faults(found: dict[str, Any]) -> list[str]:
    broken = []
    for run in found["runs"]:
        if run["stuck"]:
            broken.append(f"{run['way']}: {run['stuck']}")
            continue
        if not run["same_bits"]:
            broken.append(f"{run['way']}: version {run['version']} has other bits than the run in peace")
        if any(run["codes"]):
            broken.append(f"{run['way']}: exit codes at the end: {run['codes']}")
        broken += [f"{run['way']}, {one['who']} cut off: {what}" for one in run["cuts"] for what in _broken(one)]
    return broken


def _broken(one: dict[str, Any]) -> Iterator[str]:
    who = one["who"]
    if one["goes_on"] > _MOST_SECONDS[who]:
        yield f"{one['goes_on']:.1f} s without a step, {_MOST_SECONDS[who]:g} are allowed"
    if who != "coordinator" and one["while_cut"] < _LEAST_PACE * one["before"]:
        yield f"{one['while_cut']:.1f} steps/s meanwhile, {one['before']:.1f} before"
    if who != "leader" and not one["said_so"]:
        yield "a worker that was cut off from its server did not say so"
    if one["connect_timeout"] is not None:
        allowed = one["connect_timeout"] + _NOTICED_SECONDS + _SLACK_SECONDS
        if one["gave_up"] is None or one["gave_up"] > allowed:
            yield f"the third worker gave up after {one['gave_up']} s, {allowed:g} are allowed"
        elif one["code"] != 1:
            yield f"the third worker's exit code is {one['code']}"
