"""PyTorch's DistributedDataParallel on gloo between hosts: one process of it, of one thread; start one a host.

    python -m peers.torch_ddp_host --job job.npz --batch 128 --processes 2 --rank 0 --store tcp://10.0.0.1:29500
        --interface eth0 [--hook fp16|powersgd:2] (--epochs 20 --weights weights.npz | --seconds 5)

Rows are seen as they are stored: grey. `--hook` is a communication hook as the documentation registers it
(docs.pytorch.org, "DDP Communication Hooks"): fp16_compress_hook; powerSGD_hook with error feedback and warm start, of
which the first two steps are dense, as few as it takes, and with all gradients in one bucket: of several, gloo gets the
second exchange of one and the first of the next in another order in each process, and fails or hangs.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from peers.job import answer, measure, read_job
from peers.torch_ddp import distributed, told, wrapped
from peers.torch_vae import trained_weights

# The first steps rebuild the buckets, and those of PowerSGD are dense.
_WARM_STEPS = 5
_DENSE_STEPS = 2
_ONE_BUCKET_MB = 25
_STEPS_TOGETHER = 200
_SEEDS_APART = 1000


def hooked(model: DistributedDataParallel, hook: str) -> None:
    """Exchange gradients so: "none", "fp16", "powersgd:RANK". Raises ValueError for another word."""
    name, _, rank = hook.partition(":")
    if name == "fp16":
        model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    elif name == "powersgd":
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=int(rank), start_powerSGD_iter=_DENSE_STEPS)
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    elif name != "none":
        raise ValueError(f"--hook {hook}: there are none, fp16, powersgd:RANK")


def process(words: argparse.Namespace) -> dict[str, Any] | None:
    """Train; what the first process answers: examples, examples_per_second, seconds."""
    job = read_job(words.job)
    model = wrapped(job, bucket_mb=_ONE_BUCKET_MB if words.hook.startswith("powersgd") else None)
    hooked(model, words.hook)
    train = distributed(model, job, words.batch, seed=words.seed, seen=lambda rows: rows)
    batch = words.processes * words.batch
    train(_WARM_STEPS)
    if words.epochs is not None:
        steps = max(_WARM_STEPS, math.floor(words.epochs * len(job.rows) / batch))
        began = time.perf_counter()
        for done in range(_WARM_STEPS, steps, _STEPS_TOGETHER):
            train(min(_STEPS_TOGETHER, steps - done))
        seconds = max(1e-9, time.perf_counter() - began)
        if words.rank == 0 and words.weights is not None:
            np.savez(words.weights, **trained_weights(model.module, job))
        pace = (steps - _WARM_STEPS) * batch / seconds
        return {"examples": steps * batch, "seconds": seconds, "examples_per_second": pace}
    if words.rank != 0:
        while steps := told():
            train(steps)
        return None
    steps_done = _WARM_STEPS

    def run(steps: int) -> list[float]:
        nonlocal steps_done
        steps_done += told(steps)
        return list(train(steps))

    found = measure(run, batch, words.seconds, 0, together=words.together)
    told(0)
    return {name: found[name] for name in ("seconds", "examples_per_second")} | {"examples": steps_done * batch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=Path, required=True, help="the .npz file")
    parser.add_argument("--batch", type=int, required=True, help="rows of one step of one process")
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--store", required=True, help="where rank 0 listens, for all to find one another")
    parser.add_argument("--interface", default="lo")
    parser.add_argument("--hook", default="none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, help="train to the end")
    parser.add_argument("--weights", type=Path, help="where they are written then")
    parser.add_argument("--seconds", type=float, default=5.0, help="without --epochs: train for so long")
    parser.add_argument("--together", type=int, default=20, help="steps between two looks at the clock")
    words = parser.parse_args()
    # gloo looks the host's name up, unless it is told which interface to use.
    os.environ["GLOO_SOCKET_IFNAME"] = words.interface
    torch.manual_seed(_SEEDS_APART * words.seed + words.rank)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=words.store, rank=words.rank, world_size=words.processes)
    found = process(words)
    if words.rank == 0 and found is not None:
        answer(found)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    # Without the interpreter's own end: gloo's threads, which may outlive it, then abort one process in ten.
    os._exit(0)


if __name__ == "__main__":
    main()
