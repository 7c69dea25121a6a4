"""From an array and wishes to trained weights: in this process, or by a server and workers of this machine."""

import re
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ps_vae.data import feature_moments, from_arrays
from ps_vae.errors import NumericalError, PsVaeError, UsageError
from ps_vae.estimator.judge import Judge
from ps_vae.train.advice import advice
from ps_vae.train.checkpoint import read, versions_in
from ps_vae.train.config import RunConfig
from ps_vae.train.in_process import Progress, train_here
from ps_vae.train.local import LocalCluster
from ps_vae.train.plan import Wishes, check_examples, plan
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.start import new_weights
from ps_vae.train.trained import TrainedModel
from ps_vae.train.update import fresh_state
from ps_vae.vae.layout import ParameterLayout

__all__ = ["Fitted", "Stopping", "fit"]

_POLL_SECONDS = 0.05
_ALL = "1,0,0"
_EVERY = 1 << 20
_FLAG = re.compile(r"--([a-z][a-z-]*)")

Floats = npt.NDArray[np.float32]
Say = Callable[[Progress], None]


class Fitted(NamedTuple):
    """A configuration, the weights (size,) that it led to, after how many steps, and the ELBO of held-out rows."""

    config: RunConfig
    weights: Floats
    steps: int
    validation_elbo: float | None


class Stopping(NamedTuple):
    """patience: milestones in a row without a better ELBO of held-out rows that end training; 0: all rows are trained
    on, to the end. fraction: of the rows that are held out."""

    patience: int
    fraction: float


def fit(rows: Floats, wishes: Wishes, workers: int, stopping: Stopping, progress: Say) -> Fitted:
    """Train on rows (n, features); without workers in this process, else by so many of its children.

    Raises UsageError, DataError, or NumericalError where training diverges.
    """
    if workers < 0:
        raise UsageError(f"workers={workers}: give 0 to train in this process, or how many")
    split = _split(stopping)
    data = from_arrays("X", rows, split)
    try:
        config = plan(replace(wishes, data="X", split=split), data)
    except UsageError as error:
        # Its words are those of the commands.
        raise UsageError(_FLAG.sub(lambda flag: flag[1].replace("-", "_"), str(error))) from None
    for part in (data.train, data.validation):
        check_examples(config, part)
    judge = Judge(config, data, stopping.patience) if stopping.patience else None
    moments = feature_moments(data.train)
    for line in advice(config, moments):
        warnings.warn(line.removeprefix("WARNING: "), stacklevel=3)
    try:
        if workers:
            config, weights = _train_by(workers, rows, replace(wishes, split=split), judge, progress)
        else:
            if judge is None:
                # The end is all that is asked for.
                config = replace(config, milestone=config.steps)
            state = fresh_state(config, new_weights(config, data, moments, ParameterLayout(config.model)))
            weights = train_here(config, data, state, progress, _verdict(judge))
    except PsVaeError as error:
        what, is_numerical, _ = str(error).partition("; --resume with a lower")
        if not is_numerical:
            raise
        # What it says is for the commands.
        raise NumericalError(f"{what}; give a lower learning_rate than {config.learning_rate:g}") from None
    if judge is None:
        return Fitted(config, weights, config.steps, None)
    if judge.weights is None or judge.best.version is None:
        raise NumericalError(f"{judge.best.sentence()}; give a lower learning_rate than {config.learning_rate:g}")
    return Fitted(config, judge.weights, judge.best.version, judge.best.elbo)


def _split(stopping: Stopping) -> str:
    if stopping.patience < 0 or not 0 < stopping.fraction < 1:
        raise UsageError(
            f"patience={stopping.patience}, validation_fraction={stopping.fraction:g}: give a number of milestones or "
            "0, and a fraction between 0 and 1"
        )
    return f"{1 - stopping.fraction!r},{stopping.fraction!r},0" if stopping.patience else _ALL


def _verdict(judge: Judge | None) -> Callable[[int, Floats], bool]:
    def is_over(version: int, weights: Floats) -> bool:
        if judge is None:
            return False
        judge.see(version, weights)
        return judge.is_over

    return is_over


def _train_by(
    workers: int, rows: Floats, wishes: Wishes, judge: Judge | None, progress: Say
) -> tuple[RunConfig, Floats]:
    with tempfile.TemporaryDirectory(prefix="ps-vae-fit-") as folder:
        path = Path(folder) / "X.npy"
        np.save(path, rows)
        run_dir = Path(folder) / "run"
        # A socket in a private folder: nobody else finds it. Every milestone stays to be judged.
        options = ServerOptions(listen="", run_dir=run_dir, keep=3 if judge is None else _EVERY)
        with LocalCluster(replace(wishes, data=str(path)), options, workers, say=lambda text: None) as run:
            while not run.is_done:
                state = run.poll()
                if state is not None and state["elbo"] is not None:
                    progress(Progress(state["version"], state["steps"], state["elbo"], state["kl"]))
                if judge is not None and not judge.is_over:
                    _show(judge, run_dir)
                    if judge.is_over:
                        run.stop()
                time.sleep(_POLL_SECONDS)
            result = run.result()
        if result["failed"]:
            raise PsVaeError(result["reason"])
        if judge is not None:
            _show(judge, run_dir)
        model = TrainedModel.open(run_dir, say=lambda text: None)
        return model.config, model.parameters.vector.astype(np.float32)


def _show(judge: Judge, run_dir: Path) -> None:
    """The checkpoints that there are by now, in the order of their versions."""
    folder = RunFolder(run_dir)
    found = versions_in(folder.checkpoints)
    if not found:
        return
    config = folder.config()
    layout = ParameterLayout(config.model)
    for version, path in reversed(found):
        # Where the run is told to stop it leaves one more, wherever it is.
        if version > judge.best.newest and (version % config.milestone == 0 or version == config.steps):
            judge.see(version, read(path, layout).state.weights)
