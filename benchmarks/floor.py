"""The floor: the matrix products of a training step alone, which no system can do without, in NumPy's BLAS.

    python -m floor --model relu --copies 2 --seconds 2

Float32, arrays allocated once, one BLAS thread. For each layer, x (batch, inputs), w (inputs, outputs) and
d (batch, outputs) the gradient with respect to what the layer gives:

    x w      forward
    x^T d    gradient of the weights
    d w^T    gradient of x; not of the first layer, whose x is the data

The copies run at the same time, each on a core of its own; their examples are added.
"""

import argparse
import json
import multiprocessing
import os
import time
from multiprocessing.synchronize import Barrier

import numpy as np
import numpy.typing as npt
from models import MODELS, Model

__all__ = ["products", "rate"]

Array = npt.NDArray[np.float32]

_TOGETHER = 10


def products(model: Model) -> list[tuple[Array, Array, Array]]:
    """(left, right, out) of every product of a step, in a fixed order."""
    draw = np.random.default_rng(0)
    made: list[tuple[Array, Array, Array]] = []
    for position, (inputs, outputs) in enumerate(model.layers()):
        x, w, d = (
            draw.standard_normal(shape, np.float32)
            for shape in ((model.batch, inputs), (inputs, outputs), (model.batch, outputs))
        )
        made += [(x, w, np.empty_like(d)), (x.T, d, np.empty_like(w))]
        if position:
            made.append((d, w.T, np.empty_like(x)))
    return made


def rate(model: Model, seconds: float) -> float:
    """Examples a second on this core."""
    step = products(model)
    _repeat(step)
    steps, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        _repeat(step)
        steps += _TOGETHER
    return steps * model.batch / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="relu")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    words = parser.parse_args()
    # Read by the BLAS of the processes that are started below, when it is loaded.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    barrier, cores = context.Barrier(words.copies), sorted(os.sched_getaffinity(0))
    with context.Pool(words.copies, _take, (barrier,)) as pool:
        tasks = [(words.model, words.seconds, cores[copy % len(cores)]) for copy in range(words.copies)]
        print(json.dumps({"examples_per_second": sum(pool.starmap(_rate_on, tasks, chunksize=1))}))


def _repeat(step: list[tuple[Array, Array, Array]]) -> None:
    for _ in range(_TOGETHER):
        for left, right, out in step:
            np.matmul(left, right, out=out)


def _take(barrier: Barrier) -> None:
    global _start
    _start = barrier


def _rate_on(model: str, seconds: float, core: int) -> float:
    os.sched_setaffinity(0, {core})
    # Before the common start: what is loaded and touched for the first time.
    rate(MODELS[model], 0.1)
    _start.wait()
    return rate(MODELS[model], seconds)


if __name__ == "__main__":
    main()
