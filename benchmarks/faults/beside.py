"""A run that goes on while something is done beside it: its pace, what its servers hold, and its bits at the end.

Two servers, of which each holds one shard, and one worker, without faults of their own. Where there are two cores the
servers have the first one, and whatever is done beside them has that too; the worker has the others.
"""

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exchange.resident import resident

from faults.cluster import Cluster, Program, observing
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.train.key_folder import KeyFolder

__all__ = ["MODEL", "Good", "Held", "cores_beside", "digest", "in_peace"]

MODEL = ("--data", "mnist-5k", "--hidden", "100", "--latent", "10", "--batch-size", "512", "--microbatch", "64")
BATCH = 512

_NEVER = str(10**9)
_START_SECONDS, _END_SECONDS, _ASK_SECONDS = 90.0, 60.0, 20.0
_WARM_STEPS = 20
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Held:
    """What the servers hold, each: bytes of memory, descriptors, and seconds of processor time that they have used."""

    memory: list[int]
    descriptors: list[int]
    seconds: list[float]


def cores_beside() -> list[int]:
    """Of the servers, and of what is done beside them."""
    return sorted(os.sched_getaffinity(0))[:1]


class Good:
    """The run. Raises Stuck where it does not begin.

    keys  a folder to make keys in, or None; the worker's are `worker`
    """

    def __init__(self, cluster: Cluster, model: Sequence[str] = MODEL, *, keys: Path | None = None) -> None:
        self.keys: ClientKeys | None = None
        self._cluster = cluster
        self._folder = cluster.folder / "run"
        safety = ["--insecure"]
        if keys is not None:
            folder = KeyFolder(keys)
            folder.create("server")
            folder.create("worker")
            folder.allow("worker")
            self.keys = folder.client_keys("worker")
            safety = ["--keys", str(keys)]
        plan = ["--steps", _NEVER, "--checkpoint-every", _NEVER, "--report-every", _NEVER, *model]
        here = ["taskset", "-c", ",".join(map(str, cores_beside()))]
        there = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[-1:]))]
        listen = ["--listen", "tcp://127.0.0.1:*", *safety]
        words = ["server", *listen, "--run-dir", str(self._folder), "--remote-shards", "1", *plan]
        first = cluster.start(*words, prefix=here)
        cluster.until(lambda: "listening on" in first.text or first.code is not None, "the server", _START_SECONDS)
        self.address = first.text.split("listening on ", 1)[1].split(";")[0]
        second = cluster.start("server", "--join", self.address, *listen, prefix=here)
        self.servers = [first, second]
        shown = [*safety, *(["--key", "worker"] if keys is not None else [])]
        join = ["worker", "--server", self.address, "--processes", "1"]
        self.worker: Program = cluster.start(*join, *shown, prefix=there)
        cluster.until(lambda: self.version() >= _WARM_STEPS, "the first steps", _START_SECONDS)

    def version(self) -> int:
        """That every shard has reached; 0 before the run has begun."""
        return self.state().get("version", 0)

    def state(self) -> dict[str, Any]:
        """What `ps-vae status` shows; empty where nobody answers."""
        with observing(self.address, self.keys) as ask:
            end = time.monotonic() + _ASK_SECONDS
            while (state := ask()) is None and time.monotonic() < end and self.servers[0].code is None:
                pass
        return state or {}

    def held(self) -> Held:
        pids = [server.process.pid for server in self.servers]
        return Held(
            [resident(pid).own for pid in pids],
            [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids],
            [_processor_seconds(pid) for pid in pids],
        )

    @property
    def are_there(self) -> bool:
        """Whether all of its processes run."""
        return all(program.code is None for program in [*self.servers, self.worker])

    def end(self) -> tuple[int, str | None, list[int | None]]:
        """Stop it: its last version, the digest of that checkpoint, None where there is none, and the exit codes."""
        if self.servers[0].code is None:
            self.servers[0].process.send_signal(signal.SIGTERM)
        programs = [*self.servers, self.worker]
        self._cluster.until(lambda: all(one.code is not None for one in programs), "the end", _END_SECONDS)
        version, found = digest(self._folder)
        return version, found, [one.code for one in programs]


def digest(folder: Path) -> tuple[int, str | None]:
    """The version of the newest checkpoint of a run's folder, and of the file the digest; 0 and None without one."""
    files = sorted((folder / "checkpoints").glob("step-*.safetensors"))
    if not files:
        return 0, None
    return int(files[-1].stem.removeprefix("step-")), hashlib.sha256(files[-1].read_bytes()).hexdigest()


def in_peace(cluster: Cluster, version: int, model: Sequence[str] = MODEL) -> str | None:
    """The digest of a run of so many steps that nothing is done beside, on one server with a worker a core."""
    folder = cluster.folder / "peace"
    plan = ["--steps", str(version), "--checkpoint-every", _NEVER, "--report-every", _NEVER, "--no-pictures", *model]
    one = cluster.start("train", *plan, "--run-dir", str(folder))
    # It is as fast as the other one was, at least: whoever waits for it has waited for that.
    cluster.until(lambda: one.code is not None, "the run in peace", float(version) + _START_SECONDS)
    return digest(folder)[1]


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
