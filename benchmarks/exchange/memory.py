"""What memory a server needs, and whether it goes on needing more.

`ps-vae server` itself, one shard, Adam, a model of about so many parameters, with two workers that have no model and
push a gradient each in every step. Its own account of what has to be in memory, in vectors of the model's size:

    1  weights, the newest that are published
    3  published buffers besides: the version before, the milestone that evaluators may pull, the next one
    2  Adam's state
    2  blocks in flight, one a worker; with shared memory these lie in the workers' segments, and are counted here too

allowed is 1.15 times that and 150 MB for the interpreter and the libraries' data. Measured are anonymous and shared
pages (`resident`): "steady" is the most in the second half of the run, "peak" the most from the process's start on.
No checkpoint is written meanwhile.
"""

import contextlib
import math
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import programs
from report import table

from exchange.resident import mappings, resident
from exchange.turns import Program
from ps_vae.errors import RefusedError, Unreachable
from ps_vae.ps.observer import Observer
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.layout import ParameterLayout

__all__ = ["allowed", "memory", "memory_table", "widths"]

WEIGHTS, PUBLISHED, OPTIMIZER, WORKERS = 1, 3, 2, 2
SMALL, SMALL_STEPS = 652_824, 10_000
_INPUTS, _LATENT = 784, 20
_MEGABYTE = 1e6
_SETTLED_STEPS = 20
_POLL_SECONDS = 0.05


def memory(size: int, steps: int, transports: Sequence[str], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Rows of about `size` parameters for so many steps, and of a small model for 10,000, with each transport."""
    rows = []
    for transport in transports:
        for parameters, count in ((size, steps), (SMALL, SMALL_STEPS)):
            say(f"{parameters:,} parameters, {count:,} steps, {transport} ...")
            rows.append(_measure(widths(parameters), count, transport))
    return rows


def widths(size: int) -> tuple[int, ...]:
    """Hidden layers of a model with about `size` parameters: one, or two alike where one would be wider than 2,000."""
    # 784-h-20-h-784, its biases and both heads: 1,630 h + 824; with a second layer: 2 h^2 + 1,632 h + 824.
    one = (size - 824) / 1630
    if one <= 2000:
        return (max(1, round(one)),)
    both = round((math.sqrt(1632**2 + 8 * (size - 824)) - 1632) / 4)
    return (both, both)


def allowed(parameters: int) -> float:
    """Bytes that the server of a model may need."""
    return 1.15 * 4 * parameters * (WEIGHTS + PUBLISHED + OPTIMIZER + WORKERS) + 150 * _MEGABYTE


def memory_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """In MB."""
    drawn = [
        {
            "tensors": {"auto": "shared memory", "tcp": "socket"}[row["transport"]],
            "parameters": row["parameters"],
            "steps": row["steps"],
            **{name: row[name] / _MEGABYTE for name in ("allowed", "steady", "peak", "pss", "growth")},
            "heap": row["anonymous"] / _MEGABYTE,
            "own segment": row["own_segments"] / _MEGABYTE,
            "workers' segments": row["borrowed_segments"] / _MEGABYTE,
            "within": "yes" if row["steady"] <= row["allowed"] else "no",
        }
        for row in rows
    ]
    columns = {"tensors": "", "parameters": ",d", "steps": ",d", "allowed": ",.0f", "steady": ",.0f", "within": ""}
    measured = dict.fromkeys(("heap", "own segment", "workers' segments", "pss", "peak"), ",.0f")
    text = "MB; steady = heap + own segment + workers' segments; growth from the first to the last tenth of the steps"
    return f"{table(drawn, {**columns, **measured, 'growth': '+,.1f'})}\n\n{text}"


def _measure(hidden: tuple[int, ...], steps: int, transport: str) -> dict[str, Any]:
    layout = ParameterLayout(ModelConfig(inputs=_INPUTS, hidden=hidden, latent=_LATENT))
    variables = programs.environment()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ps-vae-")))
        address = f"ipc://{folder}/server"
        server = stack.enter_context(Program(_server(hidden, address, folder, transport), variables=variables))
        # Nothing is to be written at the end: it is not told to stop, it is stopped.
        stack.callback(os.killpg, server.process.pid, signal.SIGKILL)
        crowd = ("--crowd", str(WORKERS), "--compute-ms", "1", "--transport", transport)
        stack.enter_context(Program(("exchange.stub_worker", "--server", address, *crowd), variables=variables))
        observer = Observer(address)
        stack.callback(observer.close)
        samples, peak = _follow(server, observer, steps)
        last = mappings(server.process.pid)
        status = resident(server.process.pid)
    tenth = max(1, len(samples) // 10)
    return {
        "transport": transport,
        "parameters": layout.size,
        "steps": steps,
        "allowed": allowed(layout.size),
        "steady": max(own for _, own in samples[len(samples) // 2 :]),
        "pss": last.proportional,
        "growth": _middle(samples[-tenth:]) - _middle(samples[:tenth]),
        "anonymous": status.anonymous,
        "shared": status.shared,
        "peak": peak,
        "peak_with_files": status.peak,
        "own_segments": last.own_segments,
        "borrowed_segments": last.borrowed_segments,
        "terms": {"weights": WEIGHTS, "published": PUBLISHED, "optimizer": OPTIMIZER, "in_flight": WORKERS},
    }


def _follow(server: Program, observer: Observer, steps: int) -> tuple[list[tuple[int, int]], int]:
    """(version, bytes) from the first steps on until so many are done; and the most ever."""
    samples: list[tuple[int, int]] = []
    peak = 0
    while not samples or samples[-1][0] < steps:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with code {server.process.returncode}")
        own = resident(server.process.pid).own
        peak = max(peak, own)
        try:
            version = observer.ask(_POLL_SECONDS)["version"]
        except (Unreachable, RefusedError):
            continue
        if version >= min(_SETTLED_STEPS, steps):
            samples.append((version, own))
        time.sleep(_POLL_SECONDS)
    return samples, peak


def _server(hidden: tuple[int, ...], address: str, folder: Path, transport: str) -> tuple[str, ...]:
    never = str(10**9)
    return (
        *("ps_vae", "server", "--listen", address, "--run-dir", str(folder / "run"), "--transport", transport),
        *("--data", "mnist-5k", "--hidden", ",".join(map(str, hidden)), "--latent", str(_LATENT)),
        *("--batch-size", str(WORKERS), "--microbatch", "1", "--steps", never),
        *("--checkpoint-every", never, "--report-every", never),
    )


def _middle(samples: Sequence[tuple[int, int]]) -> float:
    return statistics.median(own for _, own in samples)
