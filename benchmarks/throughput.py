"""How many examples a second: ours, what a user could take instead, and the matrix products of the step alone.

    python benchmarks/throughput.py [--model relu|tanh|both] [--rounds 3] [--seconds 2] [--only WORD] [--json]

Every row is a program of its own that is run once a round, round after round. Ratios are taken within a round; median
and spread are over the rounds. In the first round each system also trains at least 400 steps from the same initial
weights, and the loss of the last hundred of them (mean of -ELBO in nats) stands beside its figure: they do the same
work. "gemm", the floor, is the products in NumPy's BLAS: only what has faster kernels for them can be above it.

Six minutes for one model, on an idle machine.

    relu   784-400-20-400-784, batch 128 a core
    tanh   784-200-200-50-200-200-784, batch 100 a core (Burda et al. 2016)

Bernoulli, Adam 1e-3, float32, mnist-5k in memory, binarised afresh each time. Rows on one core are pinned to the same
one; rows on two have the same two to themselves, and twice the batch. Peers come with pip install '.[peers]'.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import programs
import report
from models import MODELS, Model, write_job
from peers.job import LOSS_STEPS

__all__ = ["Row", "caption", "chosen", "drawn", "measure", "outcome", "rows_of"]

LIBRARIES = ("numpy", "numba", "pyzmq", "torch", "jax", "jaxlib", "tensorflow", "keras")
_TIMEOUT_SECONDS = 240.0

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A program to measure.

    command  what `python -m` runs; without --seconds and --least
    cores    1 or 2
    batch    rows of one update; 0 where nothing is updated
    library  what has to be installed for it
    """

    name: str
    command: tuple[str, ...]
    cores: int
    batch: int = 0
    library: str = ""


def rows_of(name: str, model: Model, job: Path) -> list[Row]:
    """Every row of a model's table, in order; the first on as many cores is the floor, the second is ours."""
    b = model.batch

    def peer(module: str, batch: int, *words: str) -> tuple[str, ...]:
        return (f"peers.{module}", "--job", str(job), "--batch", str(batch), *words)

    ours = ("ours", "--model", name)
    cluster = (*ours, "--workers", "2")
    return [
        Row("gemm, 1 core", ("floor", "--model", name), 1),
        Row("ours, 1 core", ours, 1, b),
        Row("JAX jit, 1 core", peer("jax_vae", b, "--form", "step"), 1, b, "jax"),
        Row("JAX scan, 1 core", peer("jax_vae", b, "--form", "scan"), 1, b, "jax"),
        Row("PyTorch, 1 core", peer("torch_vae", b), 1, b, "torch"),
        Row("gemm, 2 cores", ("floor", "--model", name, "--copies", "2"), 2),
        Row("ours, bsp", cluster, 2, 2 * b),
        Row("ours, asp", (*cluster, "--consistency", "asp"), 2, 2 * b),
        *(Row(f"ours, bsp in {m}s", (*cluster, "--microbatch", str(m)), 2, 2 * b) for m in model.microbatches),
        Row("PyTorch, 2 threads", peer("torch_vae", 2 * b, "--threads", "2"), 2, 2 * b, "torch"),
        Row("PyTorch DDP", peer("torch_ddp", b, "--processes", "2"), 2, 2 * b, "torch"),
        Row("JAX jit, 2 cores", peer("jax_vae", 2 * b, "--form", "step"), 2, 2 * b, "jax"),
        Row("JAX scan, 2 cores", peer("jax_vae", 2 * b, "--form", "scan"), 2, 2 * b, "jax"),
        Row("TensorFlow PS", peer("tensorflow_ps", b, "--workers", "2"), 2, b, "tensorflow"),
    ]


def chosen(rows: Sequence[Row], words: Sequence[str]) -> list[Row]:
    """The rows in whose name one of the words stands; all of them where there are no words."""
    return [row for row in rows if not words or any(word.lower() in row.name.lower() for word in words)]


def measure(
    rows: Sequence[Row], rounds: int, seconds: float, run: Callable[[Row, tuple[str, ...]], Answer]
) -> dict[str, list[Answer]]:
    """What each row answered in each round.

    run  of a row and its last words; not called where the row's library is missing
    """
    answers: dict[str, list[Answer]] = {row.name: [] for row in rows}
    for number in range(rounds):
        for row in rows:
            words = ("--seconds", str(seconds))
            if number == 0 and row.batch:
                words += ("--least", str(LOSS_STEPS.stop))
            if row.library and importlib.util.find_spec(row.library) is None:
                answer = {"failed": "not installed (pip install '.[peers]')"}
            else:
                answer = run(row, words)
            answers[row.name].append(answer)
    return answers


def outcome(rows: Sequence[Row], answers: Mapping[str, Sequence[Answer]]) -> dict[str, Answer]:
    """What is said of each row; None where it cannot be said.

    examples_per_second  median, least, most over the rounds
    rounds               the figure of each round
    of_the_floor         times the matrix products on as many cores
    ours_is              times as fast as this row is ours: on one core without a server, on two cores bsp with one
    loss                 of the steps that are compared, in the first round that trained so many
    why                  the first reason why a round has no figure
    """
    figures = {name: [answer.get("examples_per_second") for answer in given] for name, given in answers.items()}
    references: dict[tuple[int, bool], list[float | None]] = {}
    for row in rows:
        if row.name.startswith(("gemm", "ours")):
            references.setdefault((row.cores, row.batch > 0), figures[row.name])
    found = {}
    for row in rows:
        own = figures[row.name]
        floor, ours = references.get((row.cores, False)), references.get((row.cores, True))
        found[row.name] = {
            "cores": row.cores,
            "batch": row.batch or None,
            "examples_per_second": report.summary(own),
            "rounds": own,
            "of_the_floor": report.ratio(own, floor) if floor else None,
            "ours_is": report.ratio(ours, own) if ours and row.batch else None,
            "loss": _first(answers[row.name], "loss"),
            "why": _first(answers[row.name], "failed"),
        }
    return found


def drawn(found: Mapping[str, Answer]) -> str:
    """The table of a model, as Markdown; below it why a row has no figure."""
    columns = {
        "system": "",
        "examples/s": ",.0f",
        "least to most": "",
        "of the floor": ".2f",
        "ours is": ".2f",
        "batch": "d",
        "loss": ".1f",
    }
    lines = []
    for name, row in found.items():
        pace = row["examples_per_second"]
        lines.append(
            {
                "system": name,
                "examples/s": pace["median"] if pace else None,
                "least to most": f"{pace['least']:,.0f} to {pace['most']:,.0f}" if pace else row["why"],
                "of the floor": row["of_the_floor"],
                "ours is": row["ours_is"],
                "batch": row["batch"],
                "loss": row["loss"],
            }
        )
    reasons = [f"{name}: {row['why']}" for name, row in found.items() if row["why"] and row["examples_per_second"]]
    return "\n".join([report.table(lines, columns), *(f"\nNot in every round: {reason}" for reason in reasons)])


def caption(name: str, model: Model, whole: Mapping[str, Any]) -> str:
    """What a table was measured with, in two lines."""
    machine = whole["machine"]
    words = " ".join(f"{name}={value}" for name, value in machine.get("blas_variables", {}).items())
    libraries = ", ".join(f"{name} {version}" for name, version in whole["versions"].items() if version)
    widths = "-".join(map(str, (*model.hidden, model.latent, *reversed(model.hidden))))
    return (
        f"{name}: 784-{widths}-784; {machine.get('cores')} cores of {machine.get('cpu')}, "
        f"{' '.join(machine.get('flags', []))}\n"
        f"NumPy's BLAS: {'; '.join(machine.get('blas', []))} ({words}); {libraries}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=(*MODELS, "both"), default="relu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each row in each round")
    parser.add_argument(
        "--only", "--rows", metavar="WORD", action="append", default=[], help="rows with it in the name"
    )
    parser.add_argument("--cores", type=int, nargs=2, default=(0, 1), help="the two to use (default: 0 1)")
    parser.add_argument(
        "--blas",
        choices=("environment", "native"),
        default="environment",
        help="native: OpenBLAS chooses its kernels by itself, whatever OPENBLAS_CORETYPE says",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    words = parser.parse_args()
    variables = programs.environment(words.blas)
    usable = os.sched_getaffinity(0)
    if len(set(words.cores) & usable) < 2:
        parser.error(f"--cores {words.cores[0]} {words.cores[1]}: give two of {sorted(usable)}")

    def run(row: Row, last: tuple[str, ...]) -> Answer:
        print(f"{row.name} ...", file=sys.stderr, flush=True)
        on = words.cores[: row.cores]
        return programs.run((*row.command, *last), cores=on, variables=variables, timeout=_TIMEOUT_SECONDS)

    machine = programs.run(("report",), cores=words.cores, variables=variables, timeout=_TIMEOUT_SECONDS)
    whole: Answer = {"blas": words.blas, "machine": machine, "versions": report.versions(LIBRARIES), "models": {}}
    for name in MODELS if words.model == "both" else (words.model,):
        with tempfile.TemporaryDirectory() as folder:
            job = Path(folder) / "job.npz"
            write_job(job, MODELS[name])
            rows = chosen(rows_of(name, MODELS[name], job), words.only)
            if not rows:
                parser.error(f"--only {' '.join(words.only)}: no row has that in its name")
            found = outcome(rows, measure(rows, words.rounds, words.seconds, run))
        whole["models"][name] = found
        if not words.json:
            print(f"{caption(name, MODELS[name], whole)}\n\n{drawn(found)}\n", flush=True)
    if words.json:
        print(json.dumps(whole))
    return 0


def _first(answers: Sequence[Answer], key: str) -> Any:
    return next((answer[key] for answer in answers if answer.get(key) is not None), None)


if __name__ == "__main__":
    sys.exit(main())
