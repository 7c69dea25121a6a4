"""PyTorch's DistributedDataParallel on gloo: processes of one thread each, on one host.

    python -m peers.torch_ddp --job job.npz --batch 128 --processes 2

As its documentation says: one process a device, started by torch.multiprocessing.spawn; gloo for CPUs; each process has
its share of the rows by a DistributedSampler, told the epoch; DDP averages the gradients while backward still runs
(docs.pytorch.org, "Getting Started with Distributed Data Parallel", "torch.utils.data.distributed"); gradients are
views of the buckets that are exchanged, which saves a copy ("torch.nn.parallel.DistributedDataParallel",
gradient_as_bucket_view).
"""

import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler, TensorDataset

from peers.job import Job, answer, measure, parser, read_job
from peers.torch_vae import TorchVae, binarised, fused_adam

__all__ = ["distributed", "told", "wrapped"]


def wrapped(job: Job, *, bucket_mb: int | None = None) -> DistributedDataParallel:
    """The job's model, whose gradients are averaged over all processes; by default the first of them go alone."""
    return DistributedDataParallel(TorchVae(job).train(), gradient_as_bucket_view=True, bucket_cap_mb=bucket_mb)


def distributed(
    model: DistributedDataParallel,
    job: Job,
    batch: int,
    *,
    seed: int = 0,
    seen: Callable[[torch.Tensor], torch.Tensor] = binarised,
) -> Callable[[int], Sequence[float]]:
    """What trains so many further steps, in all processes at the same time; `batch` rows are this process's.

    seed  of the order of the rows
    seen  from rows as they are stored to what the model is given
    """
    rows = torch.from_numpy(job.rows)
    optimizer = fused_adam(model)
    sampler = DistributedSampler(TensorDataset(rows), shuffle=True, drop_last=True, seed=seed)
    batches = len(sampler) // batch
    steps_done, order = 0, torch.empty(0)

    def run(steps: int) -> Sequence[float]:
        nonlocal steps_done, order
        losses = []
        for index in range(steps_done, steps_done + steps):
            if index % batches == 0:
                sampler.set_epoch(index // batches)
                order = torch.tensor(list(sampler))[: batches * batch].view(batches, batch)
            optimizer.zero_grad(set_to_none=True)
            loss = model(seen(rows[order[index % batches]]))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        steps_done += steps
        means = torch.stack(losses)
        dist.all_reduce(means)
        return (means / dist.get_world_size()).tolist()

    return run


def process(rank: int, words: Namespace, meeting: str) -> None:
    """One of the processes. The first one runs against the clock, the others do what it does."""
    torch.manual_seed(rank)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=words.processes)
    job = read_job(words.job)
    train = distributed(wrapped(job), job, words.batch)

    if rank == 0:
        found = measure(lambda steps: train(told(steps)), words.processes * words.batch, words.seconds, words.least)
        told(0)
        answer(found)
    else:
        while steps := told():
            train(steps)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    # Without the interpreter's own end: gloo's threads, which may outlive it, then abort one process in ten.
    os._exit(0)


def told(steps: int = 0) -> int:
    """How many steps the first process wants next."""
    wanted = torch.tensor(steps)
    dist.broadcast(wanted, src=0)
    return int(wanted)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--processes", type=int, default=2)
    words = arguments.parse_args()
    # All processes are on this host, whatever its name resolves to.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        torch.multiprocessing.spawn(process, (words, meeting), nprocs=words.processes)


if __name__ == "__main__":
    main()
