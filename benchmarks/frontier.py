"""Nats against bytes: what each way to communicate costs in quality, and what it gains on slow links.

    python benchmarks/frontier.py [--data FOLDER] [--results FILE] [--json] [--out PLOT.png]       as root
    python benchmarks/frontier.py --methods dense int8 --workers 2 --only quality --epochs 2 --seeds 0

MNIST, 784-400-20-400-784, Adam 1e-3, 128 rows a worker and step. Server and workers are hosts of their own, in network
namespaces (root, iproute2). Each method of `pareto.methods` trains so many epochs with each seed, on links that are not
shaped: bytes by the count of the server's interface, both directions, and the ELBO of the test images. Then it is timed
for some seconds unshaped and on links of several rates, all methods in turn, round after round. PyTorch's DDP on gloo
does the same, without a server: its bytes are those that all hosts send.

--data     folder with MNIST's IDX files (default: the environment's PS_VAE_MNIST, else ps-vae's own "mnist")
--results  a line of JSON each run, which another call goes on from: what is there is not measured again
--methods  only these; the tables show all that the file has
--anew     measure in spite of what is there

A run of twenty epochs takes half a minute, a timed one ten seconds: two hours in all.
"""

import argparse
import functools
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import programs
import report
from exchange.shaping import bits_per_second, missing, network
from models import MODELS, write_job
from pareto import tables
from pareto.job import Job, dense_bytes, exchanges, steps_together
from pareto.methods import METHODS, Method, chosen
from pareto.ours import run_ours
from pareto.outcome import RATES, UNSHAPED, answers, rows
from pareto.peer import run_ddp
from pareto.plot import draw
from pareto.results import Results, quality_key, speed_key

from ps_vae.data import load
from ps_vae.errors import PsVaeError

__all__ = ["Measurement", "due", "measure"]

LIBRARIES = ("numpy", "numba", "pyzmq", "torch")

Answer = dict[str, Any]
Measurement = tuple[dict[str, Any], str, Method, Job, str]
"""Its key; the method; what a run of it is told; the rate of the links."""


def due(words: argparse.Namespace, methods: Mapping[str, Method]) -> Iterator[Measurement]:
    """All that is to be measured, in order: first quality, then speed, where the methods take turns."""
    for workers in words.workers:
        job = Job(words.data, workers, seconds=words.seconds)
        for seed in words.seeds if words.only != "speed" else ():
            for name, method in methods.items():
                whole = replace(job, seed=seed, epochs=words.epochs)
                yield quality_key(name, method, whole), name, method, whole, UNSHAPED
        for number in range(words.rounds) if words.only != "quality" else ():
            for rate in words.rates:
                for name, method in methods.items():
                    yield speed_key(name, method, job, rate, number), name, method, job, rate


def measure(
    measurements: Iterator[Measurement],
    results: Results,
    run: Callable[[Method, Job, str], Answer],
    *,
    anew: bool,
    say: Callable[[str], None],
) -> None:
    """Measure what the results lack, or all of it; a run that fails is an answer that says why."""
    for key, name, method, job, rate in measurements:
        if results.has(key) and not anew:
            continue
        what = f"seed {job.seed}, {job.epochs:g} epochs" if job.epochs is not None else f"round {key['round']}, {rate}"
        try:
            answer = run(method, job, rate)
            elbo = f", ELBO {answer['elbo']:.3f}" if answer["elbo"] is not None else ""
            told = f"{answer['bytes'] / answer['examples']:,.1f} bytes/example"
            told += f", {answer['examples_per_second']:,.0f} examples/s{elbo}"
        except RuntimeError as error:
            answer = {"failed": str(error)}
            told = f"failed: {error}"
        results.add(key, answer)
        say(f"{job.workers} workers, {name}, {what}: {told}")


def main() -> int:
    parser = _parser()
    words = parser.parse_args()
    try:
        methods, results = chosen(words.methods), Results(words.results)
    except ValueError as error:
        parser.error(str(error))
    if lack := missing():
        print(lack, file=sys.stderr)
        return 1
    # What was started ends with us, and namespaces go.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("ended by SIGTERM"))
    try:
        # Here, where there is a network: what has to be fetched is in the cache for the hosts then.
        train_rows = len(load(words.data).train)
    except PsVaeError as error:
        print(error, file=sys.stderr)
        return 1
    variables = programs.environment()
    with tempfile.TemporaryDirectory() as folder:
        file = functools.cache(functools.partial(_job_file, Path(folder), words.data))
        run = functools.partial(_run, variables, file, train_rows)
        measure(due(words, methods), results, run, anew=words.anew, say=_say)
    whole = _whole(words, results)
    out = words.out or Path(__file__).parent / "plots" / "frontier.png"
    found = {workers: part["methods"] for workers, part in whole["workers"].items()}
    try:
        draw(found, out, f"Nats against bytes, {words.epochs:g} epochs of {Path(words.data).name}")
        whole["plot"] = str(out)
    except ImportError as error:
        whole["plot"] = None
        print(f"no plot: {error} (pip install '.[demo]')", file=sys.stderr)
    print(json.dumps(whole) if words.json else _drawn(whole, words.rates))
    return 0


def _run(
    variables: Mapping[str, str],
    file: Callable[[int], Path],
    train_rows: int,
    method: Method,
    job: Job,
    rate: str,
) -> Answer:
    shaped = None if rate == UNSHAPED else rate
    speed = None if shaped is None else bits_per_second(shaped)
    # As if nothing were compressed: where it is, there are more looks than needed.
    together = steps_together(job, method.local_steps, dense_bytes(job.rows, method.local_steps), speed)
    if method.is_peer:
        with network(shaped, job.workers) as nodes:
            return run_ddp(method.words, job, file(job.seed), nodes, variables, together)
    with network(shaped, 1 + job.workers) as nodes:
        steps = exchanges(job, method.local_steps, train_rows)
        return run_ours(method.words, job, nodes, variables, report_every=together, steps=steps)


def _job_file(folder: Path, data: str, seed: int) -> Path:
    path = folder / f"job-{seed}.npz"
    write_job(path, MODELS["relu"], data=data, split="auto", seed=seed)
    return path


def _whole(words: argparse.Namespace, results: Results) -> Answer:
    whole: Answer = {
        "machine": report.machine(),
        "versions": report.versions(LIBRARIES),
        "data": Path(words.data).name,
        "epochs": words.epochs,
        "seeds": list(words.seeds),
        "workers": {},
    }
    for workers in words.workers:
        jobs = [Job(words.data, workers, seed=seed, epochs=words.epochs) for seed in words.seeds]
        found = rows(results, METHODS, jobs, words.rates, words.rounds)
        shown = {name: row for name, row in found.items() if _is_known(row)}
        whole["workers"][workers] = {"methods": shown, **answers(shown)}
    return whole


def _is_known(row: Mapping[str, Any]) -> bool:
    return row["mean"] is not None or row["why"] is not None or any(row["pace"].values())


def _drawn(whole: Answer, rates: Sequence[str]) -> str:
    machine = whole["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in whole["versions"].items() if version)
    parts = [
        f"{machine['cores']} cores of {machine['cpu']}, {machine['system']}; {libraries}\n"
        f"{whole['epochs']:g} epochs of {whole['data']}, seeds {', '.join(map(str, whole['seeds']))}"
    ]
    for workers, part in whole["workers"].items():
        parts += [f"{workers} workers", tables.whole_table(part["methods"], rates), tables.told(part, workers)]
    return "\n\n".join([*parts, f"plot: {whole['plot']}" if whole["plot"] else ""]).rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("PS_VAE_MNIST", "mnist"), metavar="FOLDER")
    parser.add_argument("--results", type=Path, metavar="FILE")
    parser.add_argument("--methods", nargs="+", default=(), metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--workers", type=int, nargs="+", default=(2, 4), metavar="N")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), metavar="N")
    parser.add_argument("--epochs", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3, help="of the timed runs")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each timed run")
    parser.add_argument("--rates", nargs="+", type=_rate, default=RATES, help=f"of the links ({' '.join(RATES)})")
    parser.add_argument("--only", choices=("quality", "speed"))
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--out", type=Path, metavar="PNG", help="where the plot goes")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    return parser


def _rate(text: str) -> str:
    if text != UNSHAPED:
        try:
            bits_per_second(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}, or {UNSHAPED}") from None
    return text


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
