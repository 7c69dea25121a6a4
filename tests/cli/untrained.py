"""A run's folder as training would leave it, with weights that were never trained."""

from pathlib import Path
from typing import Any

import numpy as np

from ps_vae.train import checkpoint
from ps_vae.train.checkpoint import Checkpoint
from ps_vae.train.data import load_as
from ps_vae.train.plan import Wishes, plan
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.update import fresh_state
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout


def untrained_run(run_dir: Path, data: str | Path, likelihood: str, **words: Any) -> Path:
    """`run_dir`; words: more of `Wishes`, in the place of those of a small model."""
    small: dict[str, Any] = {"hidden": (6,), "latent": 3, "batch_size": 8, "steps": 5}
    wishes = Wishes(data=str(data), likelihood=likelihood, **small | words)
    rows = load_as(str(data), wishes.split or "auto", likelihood, wishes.condition or "none")
    config = plan(wishes, rows)
    layout = ParameterLayout(config.model)
    RunFolder(run_dir).create(config)
    weights = initial_weights(layout, 0, (np.full(rows.features, 0.4), np.full(rows.features, 0.3)))
    checkpoint.write(RunFolder(run_dir).checkpoints, layout, Checkpoint(fresh_state(config, weights), (-1.0, 1.0)))
    return run_dir
