"""How many examples a second: ours beside the matrix products of the same steps alone, which no system can beat.

    python benchmarks/throughput.py [--rounds 5] [--seconds 3] [--json]

Rows, measured in turn, round after round, in one run:

    gemm, 1 core     the step's matrix products, float32, preallocated, one BLAS thread
    ours, 1 core     gradient and Adam in one process, no server
    gemm, 2 cores    the first row in two processes at once
    ours, 2 workers  `ps-vae train`: server, two workers, bsp, batch 256 as microbatches of 128

Model 784-400-20-400-784, Bernoulli, Adam, batch 128 a core, mnist-5k. The ratios count, not the figures.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ps_vae.data import load, pixel_means
from ps_vae.ps.blocks import Block
from ps_vae.ps.update import Moment
from ps_vae.train.arithmetic import use_one_thread
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.local import LocalCluster
from ps_vae.train.plan import Wishes, plan
from ps_vae.train.processes import prepare_environment
from ps_vae.train.server import ServerOptions
from ps_vae.train.update import fresh_state, update_rule
from ps_vae.vae.initial import initial_weights

BATCH = 128
# (inputs, outputs) of each dense layer; the posterior's head has mean and log-variance.
LAYERS = ((784, 400), (400, 40), (20, 400), (400, 784))


def gemm_steps(seconds: float) -> float:
    """Examples a second of the matrix products alone: forward, weights' gradient, inputs' gradient but the first's."""
    draw = np.random.default_rng(0)
    products = []
    for position, (inputs, outputs) in enumerate(LAYERS):
        x, w, d = (
            draw.standard_normal(shape, np.float32) for shape in ((BATCH, inputs), (inputs, outputs), (BATCH, outputs))
        )
        products += [(x, w, np.empty_like(d)), (x.T, d, np.empty_like(w))]
        if position:
            products.append((d, w.T, np.empty_like(x)))

    def step() -> None:
        for left, right, out in products:
            np.matmul(left, right, out=out)

    return _per_second(step, seconds)


def our_steps(seconds: float) -> float:
    """Examples a second of gradient and Adam in this process."""
    data = load("mnist-5k")
    config = plan(Wishes(batch_size=BATCH, microbatch=BATCH), data)
    gradient, update = BlockGradient(config, data.train), update_rule(config)
    state = fresh_state(config, initial_weights(gradient.layout, 0, pixel_means(data.train)))
    gradient.weights[:] = state.weights
    updated = gradient.layout.zeros()
    step_number = 0

    def step() -> None:
        nonlocal step_number
        (result,) = gradient(step_number, [Block(0, 1)])
        # As a shard does it: into another vector, which is then copied, as a worker does with what it pulls.
        moment = Moment(step_number, step_number)
        update(gradient.weights, result.gradient, state.optimizer, moment, updated)
        gradient.weights[:] = updated
        gradient.buffers.give(result.gradient)
        step_number += 1

    return _per_second(step, seconds)


def cluster_steps(seconds: float, rate: float) -> float:
    """Examples a second of server, two workers and evaluator; `rate` tells how many steps fill the seconds."""
    steps = max(50, round(rate * seconds / (2 * BATCH)))
    wishes = Wishes(
        batch_size=2 * BATCH,
        microbatch=BATCH,
        steps=steps,
        checkpoint_every=steps,
        report_every=steps,
        split="0.9,0,0.1",
    )
    with tempfile.TemporaryDirectory() as folder:
        options = ServerOptions(listen="", run_dir=Path(folder) / "run")
        with LocalCluster(wishes, options, 2, say=lambda text: None) as cluster:
            while not cluster.is_done:
                cluster.poll()
                time.sleep(0.2)
            return float(cluster.result()["examples_per_second"])


def _per_second(step: Callable[[], None], seconds: float) -> float:
    for _ in range(5):
        step()
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        step()
        times.append(time.perf_counter() - start)
    return BATCH / statistics.median(times)


def _alone(function: Callable[[float], float], seconds: float, copies: int) -> float:
    """Sum over `copies` fresh processes at once, each with one BLAS thread from its start."""
    with multiprocessing.get_context("spawn").Pool(copies, use_one_thread) as pool:
        pool.map(function, [0.2] * copies, chunksize=1)
        return sum(pool.map(function, [seconds] * copies, chunksize=1))


def measure(rounds: int, seconds: float) -> dict[str, list[float]]:
    """Each row's examples a second, once a round."""
    rows: dict[str, list[float]] = {}
    rate = 10_000.0
    for _ in range(rounds):
        figures = {
            "gemm, 1 core": _alone(gemm_steps, seconds, 1),
            "ours, 1 core": _alone(our_steps, seconds, 1),
            "gemm, 2 cores": _alone(gemm_steps, seconds, 2),
            "ours, 2 workers": (rate := cluster_steps(seconds, rate)),
        }
        for name, figure in figures.items():
            rows.setdefault(name, []).append(figure)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row in each round")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    prepare_environment()
    rows = measure(arguments.rounds, arguments.seconds)
    floors = {"gemm, 1 core": "gemm, 1 core", "ours, 1 core": "gemm, 1 core"}
    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "numpy": np.__version__,
        "rows": {},
    }
    for name, figures in rows.items():
        floor = rows[floors.get(name, "gemm, 2 cores")]
        ratios = [figure / below for figure, below in zip(figures, floor, strict=True)]
        report["rows"][name] = {
            "examples_per_second": round(statistics.median(figures)),
            "least": round(min(figures)),
            "most": round(max(figures)),
            "of_the_floor": round(statistics.median(ratios), 3),
        }
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"| {'system':16} | examples/s | least to most    | of the floor |")
    print(f"|{'-' * 18}|{'-' * 12}|{'-' * 18}|{'-' * 14}|")
    for name, row in report["rows"].items():
        spread = f"{row['least']:,} to {row['most']:,}"
        print(f"| {name:16} | {row['examples_per_second']:10,} | {spread:16} | {row['of_the_floor']:12.2f} |")


if __name__ == "__main__":
    main()
