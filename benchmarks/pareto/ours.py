"""One run of ps_vae: the server on the first host, a worker on each other one, no evaluator.

What is counted is what the server's interface carries in both directions, from before the first worker starts until
all have ended: joining, the weights that each worker pulls first, and the coordinator's messages are in it.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import programs
from exchange.nodes import Node

from pareto.host_process import HostProcess, wait_for
from pareto.job import Job
from pareto.traffic import traffic

__all__ = ["run_ours"]

_LISTENING = "listening on "
# Exchanges; with many batches each they still can be counted.
_NEVER = 10**6
_PATIENCE_SECONDS = 180.0
_LAST_SECONDS = 5.0
_FEWEST_LOOKS = 4
_EVALUATION_SECONDS = 120.0


def run_ours(
    words: Sequence[str],
    job: Job,
    nodes: Sequence[Node],
    variables: Mapping[str, str],
    *,
    report_every: int,
    steps: int | None,
) -> dict[str, Any]:
    """Train to the end and evaluate, or for some seconds.

    words         further run options
    nodes         the server's, then one a worker
    report_every  exchanges of a timed run between two looks at it
    steps         exchanges of a run to the end; None: it is timed

    examples             that were trained on
    bytes                through the server's interface
    examples_per_second  from the first step to the last, by the server's clock
    elbo                 of the test rows at beta = 1; None for a timed run

    Raises RuntimeError with the words of the program that failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = [*_run_options(job, report_every, steps), *words]
        found = _trained(options, job, nodes, variables, folder)
        if steps is not None:
            found["elbo"] = _evaluated(folder / "run", variables)
        return found


def _trained(
    options: Sequence[str], job: Job, nodes: Sequence[Node], variables: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    host, *others = nodes
    run = folder / "run"
    with contextlib.ExitStack() as stack:

        def start(command: Sequence[str], node: Node, name: str, cores: Sequence[int] | None = None) -> HostProcess:
            made = HostProcess(command, node, name=name, folder=folder, variables=variables, cores=cores)
            return stack.enter_context(made)

        words = ("--transport", "tcp", "--insecure")
        listen = ("--listen", f"tcp://{host.address}:*", "--run-dir", str(run), "--json")
        server = start(("ps_vae", "server", *words, *listen, *options), host, "server")
        wait_for(lambda: _LISTENING in server.said or server.code == 0, [server], patience=_PATIENCE_SECONDS)
        if _LISTENING not in server.said:
            raise server.failure()
        address = server.said.split(_LISTENING, 1)[1].split(";", 1)[0]
        before = traffic([host])
        command = ("ps_vae", "worker", "--as-child", *words, "--server", address)
        workers = [
            start(command, node, f"worker {number}", core)
            for number, (node, core) in enumerate(zip(others, _cores(job.workers), strict=True))
        ]
        members = [server, *workers]
        if job.epochs is None:
            wait_for(lambda: _looks(run) > 0 or server.code == 0, members, patience=_PATIENCE_SECONDS)
            end = time.monotonic() + job.seconds
            wait_for(
                lambda: (time.monotonic() > end and _looks(run) >= _FEWEST_LOOKS) or server.code == 0,
                members,
                patience=_PATIENCE_SECONDS,
            )
            server.terminate()
        wait_for(lambda: server.code == 0, members, patience=_PATIENCE_SECONDS)
        # One whose link is full may not hear that the run has ended.
        end = time.monotonic() + _LAST_SECONDS
        wait_for(lambda: _are_done(workers) or time.monotonic() > end, (), patience=_PATIENCE_SECONDS)
        (after,), (earlier,) = traffic([host]), before
        result = server.answer()
    if result["failed"]:
        raise RuntimeError(f"server: {result['reason']}")
    if result["version"] < 2:
        raise RuntimeError(f"server: it ended after {result['version']} exchanges: {result['reason']}")
    return {
        "examples": result["examples"],
        "exchanges": result["version"],
        "bytes": (after - earlier).both,
        "examples_per_second": result["examples_per_second"],
        "seconds": result["seconds"],
        "elbo": None,
    }


def _run_options(job: Job, report_every: int, steps: int | None) -> list[str]:
    words = ["--data", job.data, "--hidden", str(job.hidden), "--latent", str(job.latent), "--seed", str(job.seed)]
    words += ["--batch-size", str(job.batch), "--microbatch", str(job.rows), "--keep", "1"]
    words += ["--await-workers", str(job.workers)]
    if steps is not None:
        return [*words, "--steps", str(steps)]
    never = str(_NEVER)
    return [*words, "--steps", never, "--checkpoint-every", never, "--report-every", str(report_every)]


def _cores(workers: int) -> list[list[int] | None]:
    """A core for each worker where there are enough, as `ps-vae worker` does it."""
    usable = sorted(os.sched_getaffinity(0))
    return [[core] for core in usable[:workers]] if workers <= len(usable) else [None] * workers


def _are_done(workers: Sequence[HostProcess]) -> bool:
    return all(worker.code is not None for worker in workers)


def _looks(run: Path) -> int:
    """Lines that the run has written about its steps."""
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def _evaluated(run: Path, variables: Mapping[str, str]) -> float:
    command = ("ps_vae", "evaluate", str(run), "--split", "test", "--json")
    cores = sorted(os.sched_getaffinity(0))
    answer = programs.run(command, cores=cores, variables=variables, timeout=_EVALUATION_SECONDS)
    if "failed" in answer:
        raise RuntimeError(f"evaluate: {answer['failed']}")
    if answer["elbo"] is None:
        raise RuntimeError("evaluate: the ELBO is not a finite number: the run has diverged")
    return float(answer["elbo"])
