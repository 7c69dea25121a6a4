"""How long one waits: for an import, the help, and the first step of `ps-vae train`, with and without compiled kernels.

    python benchmarks/startup.py [--rounds 5] [--json]

Rows, in seconds, measured in turn, round after round; each is a fresh process, timed from its start:

    python             an interpreter that does nothing: what no Python program can be below
    import ps_vae
    ps-vae --help
    first step, warm   `ps-vae train` on its defaults, 2 workers, from the command to the end of step 1
    first step, cold   the same with an empty cache for Numba's machine code, so that all kernels are compiled
    compiling          of that, what compiling takes: every kernel of the run in one process alone

The end of step 1 is the time that its line in the run's metrics.jsonl bears. Python's own .pyc files are there, and the
disk's pages are in memory, in all rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from report import machine, summary, table, versions

PACKAGES = ("numpy", "numba", "llvmlite", "pyzmq", "typer", "ps_vae")

# Every kernel that a run on the defaults calls, in server, workers and evaluator; prints seconds and how many.
KERNELS = """
import json
import numpy as np
from numba.core import event
from ps_vae.data import feature_moments, load
from ps_vae.jit import start_numba
from ps_vae.ps.blocks import Block
from ps_vae.train.examples import fixed_rows
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.plan import Wishes, plan
from ps_vae.train.warm_up import warm_up_elbo, warm_up_shard
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout

class Compilations(event.TimingListener):
    names = set()

    def on_start(self, compilation):
        kernel = compilation.data["dispatcher"]
        # What has no cache of its own is part of the kernels that call it.
        if kernel.stats.cache_path is not None:
            self.names.add((kernel.py_func.__module__, kernel.py_func.__qualname__))
        super().on_start(compilation)

start_numba()
listener = Compilations()
event.register("numba:compile", listener)
data = load("mnist-5k")
config = plan(Wishes(), data)
layout = ParameterLayout(config.model)
weights = initial_weights(layout, config.seed, feature_moments(data.train))
BlockGradient(config, data.train)(weights, 0, [Block(0, 1)])
fixed_rows(config, data, "validation", 0, 1)
warm_up_shard(config)
warm_up_elbo(layout.bind(weights))
print(json.dumps({"seconds": listener.duration if listener.done else 0.0, "kernels": len(listener.names)}))
"""


def whole(*words: str) -> float:
    """Seconds from the start of `python WORDS` to its end."""
    started = time.perf_counter()
    _python(words, os.environ)
    return time.perf_counter() - started


def first_step(variables: Mapping[str, str]) -> float:
    """Seconds from the command to the end of step 1."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = ["--run-dir", str(run), "--report-every", "1", "--steps", "20", "--no-pictures"]
        started = time.time()
        _python(["-m", "ps_vae", "train", *words], os.environ | variables)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (first,) = [line for line in lines if line["kind"] == "training" and line["version"] == 1]
    return float(first["time"]) - started


def with_empty_cache(measure: Callable[[Mapping[str, str]], Any]) -> Any:
    """What `measure` returns when it is given variables that name a new folder for Numba's cache."""
    with tempfile.TemporaryDirectory() as cache:
        return measure({"NUMBA_CACHE_DIR": cache})


def compilation(variables: Mapping[str, str]) -> dict[str, Any]:
    """seconds in the compiler, and the number of kernels compiled."""
    answer: dict[str, Any] = json.loads(_python(["-c", KERNELS], os.environ | variables))
    return answer


def measure(rounds: int) -> tuple[dict[str, list[float]], int]:
    """Each row's seconds, once a round, and how many kernels there are."""
    # Before the first round: what is to be warm is made so.
    first_step({})
    whole("-m", "ps_vae", "--help")
    rows: dict[str, list[float]] = {}
    kernels = 0
    for _ in range(rounds):
        compiled = with_empty_cache(compilation)
        kernels = compiled["kernels"]
        figures = {
            "python": whole("-c", "pass"),
            "import ps_vae": whole("-c", "import ps_vae"),
            "ps-vae --help": whole("-m", "ps_vae", "--help"),
            "first step, warm": first_step({}),
            "first step, cold": with_empty_cache(first_step),
            "compiling": compiled["seconds"],
        }
        for name, figure in figures.items():
            rows.setdefault(name, []).append(figure)
    return rows, kernels


def _python(words: Any, variables: Mapping[str, str]) -> str:
    """Standard output of `python WORDS`; raises where it fails, with what it said."""
    done = subprocess.run([sys.executable, *words], env=dict(variables), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"python {' '.join(words)[:80]} ended with code {done.returncode}: {done.stderr}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    words = parser.parse_args()
    rows, kernels = measure(words.rounds)
    if words.json:
        report = {name: {**(summary(seconds) or {}), "rounds": seconds} for name, seconds in rows.items()}
        print(json.dumps({"seconds": report, "kernels": kernels, "machine": machine(), "versions": versions(PACKAGES)}))
        return
    lines = [{"row": name, **(summary(seconds) or {})} for name, seconds in rows.items()]
    print(table(lines, {"row": "", "median": ".2f", "least": ".2f", "most": ".2f"}))
    print(f"\nseconds; {kernels} kernels; {words.rounds} rounds")


if __name__ == "__main__":
    main()
