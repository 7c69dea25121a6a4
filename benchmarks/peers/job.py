"""What all measured programs share: the words they take, the job they read, the clock they run against.

A job is an .npz file:

    rows              (examples, 784) float32: pixels from 0 to 1, the whole data set, kept in memory
    activation        relu or tanh
    encoder.0.weight  (inputs, outputs), and so on: the initial weights, named as ps_vae names them

Of each step a program draws the rows of its batch by index, from a new permutation each epoch; makes each pixel 1 with
its grey value as probability; and takes one sample of z a row. The loss is the mean over the batch of -ELBO in nats.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LOSS_STEPS", "Job", "answer", "measure", "parser", "read_job"]

LOSS_STEPS = slice(300, 400)
"""The steps whose mean loss is compared."""

_TOGETHER = 20


@dataclass(frozen=True, slots=True)
class Job:
    """rows and weights are float32; weights come in the order in which data flow through the model."""

    rows: npt.NDArray[np.float32]
    activation: str
    weights: dict[str, npt.NDArray[np.float32]]

    def network(self, name: str, last: str) -> list[str]:
        """Names of the layers of the encoder or decoder, the one without an activation last."""
        depth = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in self.weights)
        return [*(f"{name}.{k}" for k in range(depth)), last]

    @property
    def encoder(self) -> list[str]:
        """The last one gives means, then log-variances."""
        return self.network("encoder", "posterior")

    @property
    def decoder(self) -> list[str]:
        """The last one gives logits."""
        return self.network("decoder", "likelihood")


def read_job(path: Path) -> Job:
    """Read the whole file."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file.items())
    return Job(arrays.pop("rows"), str(arrays.pop("activation")), arrays)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The words that every peer takes."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--job", type=Path, required=True, help="the .npz file")
    made.add_argument("--batch", type=int, required=True, help="rows of one step of one process")
    made.add_argument("--seconds", type=float, default=2.0)
    made.add_argument("--least", type=int, default=0, help="steps, if they take longer than the seconds")
    return made


def measure(
    run: Callable[[int], Sequence[float]],
    batch: int,
    seconds: float,
    least: int,
    *,
    together: int = _TOGETHER,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Train for so many seconds, and at least so many steps; the first `together` ones are not timed.

    run       trains so many further steps, returns the loss of each when all are done
    batch     examples of a step
    together  steps of one call
    """
    losses = list(run(together))
    started, elapsed = clock(), 0.0
    while elapsed < seconds or len(losses) < least:
        losses += run(together)
        elapsed = clock() - started
    compared = losses[LOSS_STEPS] if len(losses) >= LOSS_STEPS.stop else []
    return {
        "examples_per_second": (len(losses) - together) * batch / elapsed,
        "seconds": elapsed,
        "loss": float(np.mean(compared)) if compared else None,
    }


def answer(found: dict[str, Any]) -> None:
    """Print the one JSON object."""
    print(json.dumps(found), flush=True)
