"""Examples a second of ps_vae itself, as one program that is measured like the others.

    python -m ours --model relu --seconds 2                       gradient and Adam in one process, no server
    python -m ours --model relu --seconds 2 --workers 2 [--consistency asp] [--microbatch 64]

With workers it is what `ps-vae train` starts: a server, the workers, an evaluator, each a process of its own. The clock
runs from the first line of metrics.jsonl to the last, so not while processes start and kernels compile.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from models import DATA, MODELS, SPLIT, Model
from peers.job import LOSS_STEPS, measure

from ps_vae.data import feature_moments, load
from ps_vae.ps.blocks import Block
from ps_vae.ps.update import Moment
from ps_vae.train.arithmetic import use_one_thread
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.local import LocalCluster
from ps_vae.train.plan import plan
from ps_vae.train.processes import prepare_environment
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.update import fresh_state, update_rule
from ps_vae.vae.initial import initial_weights

__all__ = ["alone", "cluster", "pace"]

# Lines of metrics.jsonl fall on both ends of the steps whose loss is compared.
_REPORT_EVERY = 100
_NEVER = 10**9
_POLL_SECONDS = 0.1


def alone(model: Model, seconds: float, least: int) -> dict[str, Any]:
    """One process that computes gradients and applies them."""
    use_one_thread()
    data = load(DATA, SPLIT)
    config = plan(model.wishes(model.batch, model.batch, "bsp", _NEVER, _NEVER), data)
    gradient, update = BlockGradient(config, data.train), update_rule(config)
    state = fresh_state(config, initial_weights(gradient.layout, config.seed, feature_moments(data.train)))
    weights = state.weights
    steps_done = 0

    def run(steps: int) -> list[float]:
        nonlocal steps_done
        losses = []
        for step in range(steps_done, steps_done + steps):
            (result,) = gradient(weights, step, [Block(0, 1)])
            # In place, as every peer does it: nobody else reads these weights.
            update(weights, (result.gradient,), state.optimizer, Moment(step, step), weights)
            gradient.buffers.give(result.gradient)
            log_likelihood, kl = result.metrics
            losses.append((kl - log_likelihood) / config.batch_size)
        steps_done += steps
        return losses

    return measure(run, model.batch, seconds, least)


def cluster(
    model: Model, seconds: float, least: int, workers: int, consistency: str, microbatch: int
) -> dict[str, Any]:
    """Server, workers and evaluator, a batch of `model.batch` rows a worker."""
    batch = workers * model.batch
    wishes = model.wishes(batch, microbatch, consistency, _NEVER, _REPORT_EVERY)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        with LocalCluster(wishes, ServerOptions(listen="", run_dir=run.path), workers, say=_say) as processes:
            stopped = False
            while not processes.is_done:
                processes.poll()
                found = pace(run.metrics(), batch, least)
                if not stopped and found is not None and found["seconds"] >= seconds:
                    processes.stop()
                    stopped = True
                time.sleep(_POLL_SECONDS)
            result = processes.result()
        if result["failed"]:
            raise RuntimeError(result["reason"])
        found = pace(run.metrics(), batch, least)
        if found is None:
            raise RuntimeError(f"the run ended before {least} steps were measured")
        return found


def pace(lines: list[dict[str, Any]], batch: int, least: int) -> dict[str, Any] | None:
    """Examples a second between the first line and the last, and the loss of the steps that are compared.

    lines  of metrics.jsonl, one each `_REPORT_EVERY` steps
    least  steps that have to be done

    None while there are fewer steps, or only one line.
    """
    whole = [line for line in lines if line["kind"] == "training" and line["version"] % _REPORT_EVERY == 0]
    if len(whole) < 2 or whole[-1]["version"] < least:
        return None
    elapsed = whole[-1]["time"] - whole[0]["time"]
    compared = [-line["elbo"] for line in whole if LOSS_STEPS.start < line["version"] <= LOSS_STEPS.stop]
    return {
        "examples_per_second": (whole[-1]["version"] - whole[0]["version"]) * batch / elapsed,
        "seconds": elapsed,
        "loss": sum(compared) / len(compared) if whole[-1]["version"] >= LOSS_STEPS.stop else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="relu")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--least", type=int, default=0, help="steps, if they take longer than the seconds")
    parser.add_argument("--workers", type=int, default=0, help="0: no server")
    parser.add_argument("--consistency", default="bsp")
    parser.add_argument("--microbatch", type=int, help="default: the batch of one worker")
    words = parser.parse_args()
    prepare_environment()
    # SIGTERM ends what was started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("ended by SIGTERM"))
    model = MODELS[words.model]
    if words.workers:
        microbatch = words.microbatch or model.batch
        found = cluster(model, words.seconds, words.least, words.workers, words.consistency, microbatch)
    else:
        found = alone(model, words.seconds, words.least)
    print(json.dumps(found))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
