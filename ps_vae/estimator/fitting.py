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
from ps_vae.train.advice import advice
from ps_vae.train.config import RunConfig
from ps_vae.train.in_process import Progress, train_here
from ps_vae.train.local import LocalCluster
from ps_vae.train.plan import Wishes, check_examples, plan
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.start import new_weights
from ps_vae.train.trained import TrainedModel
from ps_vae.train.update import fresh_state
from ps_vae.vae.layout import ParameterLayout

__all__ = ["Fitted", "fit"]

_POLL_SECONDS = 0.05
_ALL = "1,0,0"
_FLAG = re.compile(r"--([a-z][a-z-]*)")

Floats = npt.NDArray[np.float32]
Say = Callable[[Progress], None]


class Fitted(NamedTuple):
    """A configuration and the weights (size,) that it led to."""

    config: RunConfig
    weights: Floats


def fit(rows: Floats, wishes: Wishes, workers: int, progress: Say) -> Fitted:
    """Train on all rows (n, features); without workers in this process, else by so many of its children.

    Raises UsageError, DataError, or NumericalError where training diverges.
    """
    if workers < 0:
        raise UsageError(f"workers={workers}: give 0 to train in this process, or how many")
    data = from_arrays("X", rows, _ALL)
    try:
        config = plan(replace(wishes, data="X", split=_ALL), data)
    except UsageError as error:
        # Its words are those of the commands.
        raise UsageError(_FLAG.sub(lambda flag: flag[1].replace("-", "_"), str(error))) from None
    check_examples(config, data.train)
    moments = feature_moments(data.train)
    for line in advice(config, moments):
        warnings.warn(line.removeprefix("WARNING: "), stacklevel=3)
    try:
        if workers:
            return _fit_by(workers, rows, wishes, progress)
        # The end is all that is asked for.
        config = replace(config, milestone=config.steps)
        state = fresh_state(config, new_weights(config, data, moments, ParameterLayout(config.model)))
        return Fitted(config, train_here(config, data, state, progress))
    except PsVaeError as error:
        what, is_numerical, _ = str(error).partition("; --resume with a lower")
        if not is_numerical:
            raise
        # What it says is for the commands.
        raise NumericalError(f"{what}; give a lower learning_rate than {config.learning_rate:g}") from None


def _fit_by(workers: int, rows: Floats, wishes: Wishes, progress: Say) -> Fitted:
    with tempfile.TemporaryDirectory(prefix="ps-vae-fit-") as folder:
        path = Path(folder) / "X.npy"
        np.save(path, rows)
        run_dir = Path(folder) / "run"
        # A socket in a private folder: nobody else finds it.
        options = ServerOptions(listen="", run_dir=run_dir)
        with LocalCluster(replace(wishes, data=str(path), split=_ALL), options, workers, say=lambda text: None) as run:
            while not run.is_done:
                state = run.poll()
                if state is not None and state["elbo"] is not None:
                    progress(Progress(state["version"], state["steps"], state["elbo"], state["kl"]))
                time.sleep(_POLL_SECONDS)
            result = run.result()
        if result["failed"]:
            raise PsVaeError(result["reason"])
        model = TrainedModel.open(run_dir, say=lambda text: None)
        return Fitted(model.config, model.parameters.vector.astype(np.float32))
