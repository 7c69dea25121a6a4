"""One run of PyTorch's DDP on gloo: a process of one thread on each host, none of them a server.

What is counted is what all hosts send, from before the first process starts until the last one has ended: gloo's
meeting, and the weights that DDP broadcasts at the start, are in it. A byte that passes between two hosts counts once,
as one between worker and server does.
"""

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import programs
from exchange.nodes import Node

from pareto.host_process import HostProcess, wait_for
from pareto.job import Job
from pareto.traffic import traffic

__all__ = ["run_ddp"]

# Of a network that is nobody else's.
_PORT = 29500
# It says nothing while it trains.
_TRAINING_SECONDS, _TIMED_SECONDS = 1800.0, 120.0
_SCORING_SECONDS = 120.0


def run_ddp(
    words: Sequence[str], job: Job, file: Path, nodes: Sequence[Node], variables: Mapping[str, str], together: int
) -> dict[str, Any]:
    """Train to the end and evaluate, or for some seconds; the same keys as `run_ours`.

    words     the hook
    file      the .npz file of `peers.job`: rows and initial weights
    nodes     one a process
    together  steps between two looks at the clock

    The ELBO is taken as ours is: ps_vae's evaluation, with the same noise, is given the weights that DDP ends with.

    Raises RuntimeError with the words of the program that failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "weights.npz"
        store = f"tcp://{nodes[0].address}:{_PORT}"
        command: tuple[str, ...] = ("peers.torch_ddp_host", "--job", str(file), "--seed", str(job.seed))
        command += ("--batch", str(job.rows), "--processes", str(job.workers), "--store", store)
        command += ("--together", str(together), *words)
        if job.epochs is None:
            command += ("--seconds", str(job.seconds))
        else:
            command += ("--epochs", str(job.epochs), "--weights", str(weights))
        before = traffic(nodes)
        with contextlib.ExitStack() as stack:
            members = [
                stack.enter_context(
                    HostProcess(
                        (*command, "--rank", str(rank), "--interface", node.interface),
                        node,
                        name=f"process {rank}",
                        folder=folder,
                        variables=variables,
                    )
                )
                for rank, node in enumerate(nodes)
            ]
            patience = _TIMED_SECONDS + job.seconds if job.epochs is None else _TRAINING_SECONDS
            wait_for(lambda: all(member.code == 0 for member in members), members, patience=patience)
            answer = members[0].answer()
        sent = sum((after - earlier).sent for after, earlier in zip(traffic(nodes), before, strict=True))
        elbo = _scored(weights, job, variables) if job.epochs is not None else None
    return {**answer, "bytes": sent, "elbo": elbo}


def _scored(weights: Path, job: Job, variables: Mapping[str, str]) -> float:
    command = ("pareto.scoring", "--weights", str(weights), "--data", job.data, "--seed", str(job.seed))
    cores = sorted(os.sched_getaffinity(0))
    answer = programs.run(command, cores=cores, variables=variables, timeout=_SCORING_SECONDS)
    if "failed" in answer:
        raise RuntimeError(f"evaluation: {answer['failed']}")
    return float(answer["elbo"])
