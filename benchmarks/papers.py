"""The published figures of variational autoencoders on MNIST, trained here: -log p(x) of the test images.

    python benchmarks/papers.py vae                       a quarter of an hour of training on two quiet cores
    python benchmarks/papers.py iwae --minutes 60         trains for an hour, goes on with it when called again
    python benchmarks/papers.py dreg --minutes 60
    python benchmarks/papers.py                           the table of what there is

Table 1 of Burda, Grosse & Salakhutdinov (2016), one stochastic layer: 784-200-200-50, tanh, images binarised afresh
each time they are seen, all 60,000 training images, 5,000 importance samples for each of the 10,000 test images. Batch
size and schedule are ours.

--data         folder with MNIST's IDX files (default: the environment's PS_VAE_MNIST, else ps-vae's own "mnist")
--runs         folder of the runs, and of what was measured (default: runs/papers)
--split        of the data (default: 1,0,0, all training images)
--samples      importance samples for each test image
--minutes      of training now; what is left is for another call
--epochs       of the whole run
--consistency  bsp or asp
--workers      that train
--curve        also measure what checkpoints there are, on the first 1,000 test images with 1,000 samples
--more         more words for `ps-vae train`, such as "--push-codec int8 --pull-codec int8"
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import report

from ps_vae.train.checkpoint import newest_version
from ps_vae.train.config import RunConfig, steps_of
from ps_vae.train.run_folder import RunFolder

__all__ = ["EXPERIMENTS", "Experiment", "command", "training_seconds"]

_PS_VAE = [sys.executable, "-m", "ps_vae"]
_CURVE = ["--limit", "1000", "--samples", "1000"]


@dataclass(frozen=True, slots=True)
class Experiment:
    """A row of a paper's table.

    published  its figure, in nats
    """

    bound: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    published: float


# The first two: Burda et al. (2016), table 1; the third: a reimplementation of Tucker et al. (2019).
EXPERIMENTS = {
    "vae": Experiment("elbo", 800, 128, 1e-3, "cosine:0.01", 86.76),
    "iwae": Experiment("iwae:50", 400, 64, 1e-3, "cosine:0.01", 84.78),
    "dreg": Experiment("dreg:50", 400, 64, 1e-3, "cosine:0.01", 84.32),
}


def command(experiment: Experiment, words: argparse.Namespace, run_dir: Path) -> list[str]:
    """What trains it, or goes on training it."""
    epochs = words.epochs or experiment.epochs
    how_long = ["--epochs", str(epochs), "--run-dir", str(run_dir), "--workers", str(words.workers)]
    if RunFolder(run_dir).has_begun:
        return [*_PS_VAE, "train", "--resume", *how_long, "--keep", "1000"]
    return [
        *_PS_VAE, "train", *how_long, "--keep", "1000",
        *("--data", words.data, "--split", words.split, "--binarize", "dynamic"),
        *("--hidden", "200,200", "--latent", "50", "--activation", "tanh"),
        *("--bound", experiment.bound, "--batch-size", str(experiment.batch_size)),
        *("--learning-rate", str(experiment.learning_rate), "--schedule", experiment.schedule),
        *("--consistency", words.consistency, *shlex.split(words.more)),
    ]  # fmt: skip


def training_seconds(lines: list[dict[str, Any]], rows_a_step: int, version: int) -> float:
    """Of all sessions together up to this version, by the pace in the lines of metrics.jsonl; not what came between.

    Steps of a line without a pace count by that of the next one that has one.
    """
    seconds, before = 0.0, 0
    for line in lines:
        if line["kind"] == "training" and line["version"] <= version and line["examples_per_second"]:
            seconds += (line["version"] - before) * rows_a_step / line["examples_per_second"]
            before = line["version"]
    return seconds


def is_done(run_dir: Path, epochs: int) -> bool:
    """Whether a run is at the end of so many epochs, so that only measuring is left."""
    folder = RunFolder(run_dir)
    if not folder.has_begun:
        return False
    config = folder.config()
    return newest_version(folder.checkpoints) >= steps_of(epochs, config.train_rows, config.rows_a_step)


def train(words: list[str], minutes: float | None) -> None:
    """Until it is done, or told to stop after so many minutes, which leaves a checkpoint."""
    process = subprocess.Popen(words, stdout=sys.stderr)
    try:
        process.wait(None if minutes is None else 60 * minutes)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    if process.wait() != 0:
        raise SystemExit(f"{shlex.join(words)} ended with {process.returncode}")


def evaluate(run_dir: Path, version: int, more: list[str]) -> dict[str, Any]:
    """`ps-vae evaluate` of the test images."""
    words = [*_PS_VAE, "evaluate", str(run_dir), "--version", str(version), "--json", *more]
    result: dict[str, Any] = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    return result


def measure(run_dir: Path, samples: int, *, curve: bool) -> None:
    """Of the newest checkpoint on all test images; and of all of them on fewer, where a curve is wanted.

    What is known already is not measured again.
    """
    file = run_dir / "papers.jsonl"
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    config, lines = RunFolder(run_dir).config(), RunFolder(run_dir).metrics()
    versions = sorted(int(path.stem.split("-")[1]) for path in (run_dir / "checkpoints").glob("step-*.safetensors"))
    wanted = [(version, _CURVE) for version in versions[:: max(1, len(versions) // 12)] if curve and version]
    wanted += [(versions[-1], ["--samples", str(samples)])]
    for version, more in wanted:
        if any(each["version"] == version and each["more"] == more for each in known):
            continue
        seconds = training_seconds(lines, config.rows_a_step, version)
        found = {**evaluate(run_dir, version, more), "more": more, "minutes": seconds / 60}
        with file.open("a") as out:
            out.write(json.dumps(found) + "\n")


def how(config: RunConfig, experiment: Experiment) -> str:
    """The rate and the options of sending with which a run was trained, where they are not the usual ones."""
    usual = {field.name: field.default for field in fields(config)} | {"learning_rate": experiment.learning_rate}
    named = ("learning_rate", "local_steps", "push_codec", "pull_codec")
    words = [f"--{name.replace('_', '-')} {getattr(config, name)}" for name in named]
    told = [word for name, word in zip(named, words, strict=True) if getattr(config, name) != usual[name]]
    return " ".join([config.consistency, *told])


def rows(runs: Path) -> Iterator[dict[str, Any]]:
    """Of the table: everything that was measured."""
    for file in sorted(runs.glob("*/papers.jsonl")):
        name = file.parent.name.partition("-")[0]
        config = RunFolder(file.parent).config()
        for each in sorted(map(json.loads, file.read_text().splitlines()), key=lambda each: each["version"]):
            is_whole = each["more"] != _CURVE
            yield {
                "run": config.bound,
                "how": how(config, EXPERIMENTS[name]),
                "epochs": each["version"] * config.rows_a_step / config.train_rows,
                "minutes": each["minutes"],
                "images": float(each["examples"]),
                "test ELBO": each["elbo"],
                "-log p(x)": each["nll"],
                "published": EXPERIMENTS[name].published if is_whole else None,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", choices=EXPERIMENTS)
    parser.add_argument("--data", default=os.environ.get("PS_VAE_MNIST", "mnist"))
    parser.add_argument("--runs", type=Path, default=Path("runs/papers"))
    parser.add_argument("--split", default="1,0,0")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--consistency", default="bsp")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--more", default="")
    words = parser.parse_args()
    if words.experiment:
        words.runs.mkdir(parents=True, exist_ok=True)
        codec = "".join(letter if letter.isalnum() else "-" for letter in words.more).strip("-")
        run_dir = words.runs / "-".join(filter(None, [words.experiment, words.consistency, codec]))
        began = time.monotonic()
        experiment = EXPERIMENTS[words.experiment]
        if not is_done(run_dir, words.epochs or experiment.epochs):
            train(command(experiment, words, run_dir), words.minutes)
        print(f"trained for {(time.monotonic() - began) / 60:.0f} minutes; now the test images", file=sys.stderr)
        measure(run_dir, words.samples, curve=words.curve)
    columns = {"run": "", "how": "", "epochs": ",.0f", "minutes": ",.0f", "images": ",.0f"}
    columns |= {"test ELBO": ".2f", "-log p(x)": ".2f", "published": ".2f"}
    print(report.table(list(rows(words.runs)), columns))


if __name__ == "__main__":
    main()
