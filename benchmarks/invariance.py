"""Does it matter who computes? Runs one training job in many ways and compares every bit of the last checkpoint.

    python benchmarks/invariance.py [--steps 400] [--data mnist-5k] [--hidden 400] [--latent 20] [--json]

Each way starts real servers and workers, kills, slows and stops some of them, and ends with a checkpoint: weights,
optimizer state and the last step's metrics, and the lines of metrics.jsonl but for their times. All of them are
compared with the run of one loop in one process, which has no server at all.
"""

import argparse
import functools
import json
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data import feature_moments
from ps_vae.ps.actions import Result
from ps_vae.ps.aggregation.table import MEAN
from ps_vae.ps.blocks import Block, root
from ps_vae.ps.observer import Observer
from ps_vae.ps.update import Moment
from ps_vae.train import checkpoint
from ps_vae.train.arithmetic import use_one_thread
from ps_vae.train.config import RunConfig
from ps_vae.train.data import load_as
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.plan import DEFAULTS, Wishes, plan
from ps_vae.train.processes import prepare_environment, spawn, stop_all
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.server_process import flags
from ps_vae.train.start import new_weights
from ps_vae.train.update import fresh_state, update_rule
from ps_vae.vae.layout import ParameterLayout

_PATIENCE_SECONDS = 120.0
# A worker slowed to a tenth runs 5 ms of every 50.
_RUNS, _RESTS = 0.005, 0.045


@dataclass
class Cluster:
    """Processes of one run, started one by one; `close` leaves none."""

    folder: Path
    wishes: Wishes
    transport: str

    def __post_init__(self) -> None:
        self.run = RunFolder(self.folder / "run")
        self.children: list[subprocess.Popen[bytes]] = []
        self.address = ""

    def serve(self, shards: int, *extra: str) -> subprocess.Popen[bytes]:
        """Start the server; returns when it says where it listens."""
        log = self.folder / f"server-{len(self.children)}.log"
        listen = f"ipc://{self.folder}/socket" if self.transport == "ipc" else "tcp://127.0.0.1:*"
        words = ["server", "--listen", listen, "--shards", str(shards), "--run-dir", str(self.run.path), *extra]
        server = self._start([*words, *([] if "--resume" in extra else flags(self.wishes))], log)
        mark = "listening on "
        self.wait(lambda: mark in log.read_text() or server.poll() is not None)
        if mark not in log.read_text():
            raise RuntimeError(f"the server did not start: {log.read_text()}")
        self.address = log.read_text().split(mark, 1)[1].split(";", 1)[0]
        return server

    def work(self) -> subprocess.Popen[bytes]:
        """Start a worker."""
        log = self.folder / f"worker-{len(self.children)}.log"
        return self._start(["worker", "--as-child", "--server", self.address], log)

    def wait_for_version(self, version: int) -> None:
        """Until the run has come so far."""
        observer = Observer(self.address)
        try:
            self.wait(lambda: observer.ask(_PATIENCE_SECONDS)["version"] >= version)
        finally:
            observer.close()

    def wait_for_worker(self, pid: int) -> None:
        """Until the worker has joined and works."""
        observer = Observer(self.address)

        def is_working() -> bool:
            workers = observer.ask(_PATIENCE_SECONDS)["workers"]
            return any(worker["name"].endswith(f":{pid}") and worker["state"] == "working" for worker in workers)

        try:
            self.wait(is_working)
        finally:
            observer.close()

    def wait(self, condition: Callable[[], Any]) -> None:
        """Until `condition()`."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"nothing happens; see the logs:\n{self.logs()}")
            time.sleep(0.002)

    def finish(self, *processes: subprocess.Popen[bytes]) -> None:
        """Until these have ended, with exit code 0."""
        for process in processes:
            if process.wait(_PATIENCE_SECONDS) != 0:
                raise RuntimeError(f"exit code {process.returncode}:\n{self.logs()}")

    def logs(self) -> str:
        """What all processes have said."""
        return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        stop_all(self.children, grace=0.0)

    def outcome(self) -> dict[str, bytes]:
        """The last checkpoint and the metrics, as bytes to compare."""
        layout = ParameterLayout(self.run.config().model)
        found = checkpoint.newest(self.run.checkpoints, layout, [])
        if found is None:
            raise RuntimeError(f"no checkpoint:\n{self.logs()}")
        lines = [line for line in self.run.metrics() if line["kind"] == "training"]
        return outcome_of(found, lines)

    def _start(self, words: list[str], log: Path) -> subprocess.Popen[bytes]:
        log.touch()
        self.children.append(spawn(words, log=log))
        return self.children[-1]


def outcome_of(found: checkpoint.Checkpoint, lines: list[dict[str, Any]]) -> dict[str, bytes]:
    """Everything that has to be the same, by name."""
    timeless = [{key: line[key] for key in line if key not in ("time", "examples_per_second")} for line in lines]
    return {
        "version": str(found.version).encode(),
        "weights": found.state.weights.tobytes(),
        **{name: array.tobytes() for name, array in found.state.optimizer.items()},
        "last metrics": np.array(found.metrics).tobytes(),
        "metrics.jsonl": json.dumps(timeless).encode(),
    }


def one_loop(wishes: Wishes) -> dict[str, bytes]:
    """The run without a server: gradient, update, gradient, …"""
    said = DEFAULTS.said() | wishes.said()
    data = load_as(said["data"], said["split"], said["likelihood"], said["condition"])
    config = plan(wishes, data)
    gradient, update = BlockGradient(config, data.train), update_rule(config)
    state = fresh_state(config, new_weights(config, data, feature_moments(data.train), gradient.layout))
    weights = state.weights.copy()
    lines, sums, since = [], [0.0, 0.0], 0
    for step in range(config.steps):
        result = _of_step(config, gradient, weights, step)
        update(weights, (result.gradient,), state.optimizer, Moment(step, step), weights)
        gradient.buffers.give(result.gradient)
        sums, since = [a + b for a, b in zip(sums, result.metrics, strict=True)], since + config.batch_size
        version = step + 1
        if version % config.report_every == 0 or version % config.milestone == 0 or version == config.steps:
            log_likelihood, kl = sums[0] / since, sums[1] / since
            lines.append(
                {
                    "kind": "training",
                    "version": version,
                    "elbo": log_likelihood - kl,
                    "reconstruction": log_likelihood,
                    "kl": kl,
                    "beta": config.beta_at(step),
                    "learning_rate": config.rates().rate_at(step),
                    "staleness": 0,
                }
            )
            sums, since = [0.0, 0.0], 0
    state = replace(state, version=config.steps, weights=weights)
    return outcome_of(checkpoint.Checkpoint(state, result.metrics), lines)


def _of_step(config: RunConfig, gradient: BlockGradient, weights: npt.NDArray[np.float32], step: int) -> Result:
    """The sum of a step's microbatches, or as many times their median or trimmed mean, by NumPy."""
    whole = root(config.microbatches)
    if config.aggregate == MEAN:
        (result,) = gradient(weights, step, [whole])
        return result
    results = gradient(weights, step, [Block(index, index + 1) for index in range(whole.stop)])
    out = gradient.buffers.take()
    kept = _kept(config.aggregate, np.array([result.gradient for result in results], np.float64))
    # One after the other: the order is part of the bits.
    out[:] = functools.reduce(np.add, kept) * (whole.stop / len(kept))
    for result in results:
        gradient.buffers.give(result.gradient)
    metrics = whole.stop * _kept(config.aggregate, np.array([result.metrics for result in results])).mean(axis=0)
    return Result(whole, out, tuple(metrics.tolist()))


def _kept(words: str, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The rows' values from the smallest to the largest, without those that a median or trimmed mean leaves out."""
    count = len(rows)
    cut = (count - 1) // 2 if words == "median" else int(Fraction(words.removeprefix("trimmed:")) * count)
    return np.sort(rows, axis=0)[cut : count - cut]


def one_loop_in_a_fresh_process(wishes: Wishes) -> dict[str, bytes]:
    """BLAS reads its environment when it is loaded; the loop has to compute as the workers do."""
    prepare_environment()
    with multiprocessing.get_context("spawn").Pool(1, use_one_thread) as pool:
        return pool.apply(one_loop, (wishes,))


def plainly(cluster: Cluster, workers: int, shards: int) -> None:
    """So many workers and shards, undisturbed."""
    server = cluster.serve(shards)
    cluster.finish(server, *[cluster.work() for _ in range(workers)])


def with_a_death_and_a_late_comer(cluster: Cluster, steps: int) -> None:
    """One of two workers is killed mid-run, another joins later."""
    server = cluster.serve(1)
    victim, survivor = cluster.work(), cluster.work()
    cluster.wait_for_version(steps // 4)
    victim.kill()
    cluster.wait_for_version(steps // 2)
    # Nobody else computes until the new one is there, or the run might be over before.
    survivor.send_signal(signal.SIGSTOP)
    late_comer = cluster.work()
    cluster.wait_for_worker(late_comer.pid)
    survivor.send_signal(signal.SIGCONT)
    cluster.finish(server, survivor, late_comer)


def with_a_slow_worker(cluster: Cluster, steps: int) -> None:
    """One of two workers runs at a tenth of its speed."""
    server = cluster.serve(2)
    slow, fast = cluster.work(), cluster.work()
    cluster.wait_for_version(steps // 8)
    with _slowed(slow):
        cluster.finish(server, fast)
    cluster.finish(slow)


def stopped_and_resumed(cluster: Cluster, steps: int) -> None:
    """Stopped by SIGTERM with 2 workers and 1 shard, resumed with 3 workers and 3 shards."""
    server = cluster.serve(1)
    workers = [cluster.work() for _ in range(2)]
    for worker in workers:
        cluster.wait_for_worker(worker.pid)
    cluster.wait_for_version(steps // 3)
    server.terminate()
    cluster.finish(server, *workers)
    server = cluster.serve(3, "--resume")
    cluster.finish(server, *[cluster.work() for _ in range(3)])


@contextmanager
def _slowed(process: subprocess.Popen[bytes]) -> Iterator[None]:
    over = threading.Event()

    def alternate() -> None:
        while not over.is_set():
            process.send_signal(signal.SIGSTOP)
            over.wait(_RESTS)
            process.send_signal(signal.SIGCONT)
            over.wait(_RUNS)

    thread = threading.Thread(target=alternate)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def ways(steps: int) -> dict[str, tuple[str, Callable[[Cluster], None]]]:
    """Every way to run the job: its name, its transport, what is done."""
    table: dict[str, tuple[str, Callable[[Cluster], None]]] = {}
    for workers, shards, transport in [(1, 1, "tcp"), (2, 1, "ipc"), (2, 3, "tcp"), (3, 1, "tcp"), (3, 3, "ipc")]:
        name = f"{workers} workers, {shards} shards, {transport}".replace("1 workers", "1 worker").replace(
            "1 shards", "1 shard"
        )
        table[name] = (transport, lambda cluster, w=workers, s=shards: plainly(cluster, w, s))
    table["one of two killed, another joins"] = ("tcp", lambda cluster: with_a_death_and_a_late_comer(cluster, steps))
    table["one of two slowed to a tenth"] = ("ipc", lambda cluster: with_a_slow_worker(cluster, steps))
    table["stopped, resumed with 3 workers, 3 shards"] = ("tcp", lambda cluster: stopped_and_resumed(cluster, steps))
    return table


def run(wishes: Wishes, transport: str, way: Callable[[Cluster], None]) -> dict[str, bytes]:
    """Run the job one way, in a folder of its own; returns what to compare."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder), wishes, transport)
        try:
            way(cluster)
            return cluster.outcome()
        finally:
            cluster.close()


def different(ours: dict[str, bytes], theirs: dict[str, bytes]) -> list[str]:
    """The names of what differs."""
    return [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--data", default="mnist-5k")
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--latent", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    words = parser.parse_args()
    wishes = Wishes(
        data=words.data,
        hidden=(words.hidden,),
        latent=words.latent,
        steps=words.steps,
        microbatch=32,
        binarize="dynamic",
    )
    expected = one_loop_in_a_fresh_process(wishes)
    report = {}
    for name, (transport, way) in ways(words.steps).items():
        started = time.monotonic()
        apart = different(expected, run(wishes, transport, way))
        report[name] = {"seconds": round(time.monotonic() - started, 1), "different": apart}
        if not words.json:
            verdict = "same bits" if not apart else "DIFFERENT: " + ", ".join(apart)
            print(f"{name:45} {report[name]['seconds']:6.1f} s   {verdict}")
    if words.json:
        print(json.dumps(report))
    return int(any(entry["different"] for entry in report.values()))


if __name__ == "__main__":
    sys.exit(main())
