"""What a server starts from: the run's folder, configuration and data, and the weights of a new or a continued run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ps_vae.data import Dataset, Moments, feature_moments, gather, rows_of
from ps_vae.errors import CheckpointError, NothingLeft, UsageError
from ps_vae.ps.state import ShardState
from ps_vae.train import checkpoint
from ps_vae.train.advice import advice
from ps_vae.train.config import RunConfig
from ps_vae.train.continuation import noted_end
from ps_vae.train.data import data_of, load_as
from ps_vae.train.early_stop import EarlyStop
from ps_vae.train.plan import DEFAULTS, Wishes, check_examples, check_patience, plan, resumed
from ps_vae.train.run_folder import RunFolder, free_name
from ps_vae.train.update import fresh_state
from ps_vae.vae.config import prior_of
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout

__all__ = ["new_weights", "settle", "starting_point"]

Say = Callable[[str], None]


def settle(wishes: Wishes, run_dir: Path | None, *, resumes: bool) -> tuple[RunFolder, RunConfig, Dataset]:
    """What is to be run, on what, and where.

    Raises UsageError, DataError or CheckpointError; nothing is written.
    """
    if resumes:
        if run_dir is None:
            raise UsageError("--resume needs --run-dir, the folder of the run to continue")
        folder = RunFolder(run_dir)
        was = folder.config()
        config = resumed(was, wishes)
        data = _same_data(folder, was.data, config)
        check_patience(config, data)
        return folder, config, data
    said = DEFAULTS.said() | wishes.said()
    data = load_as(said["data"], said["split"], said["likelihood"], said["condition"])
    config = plan(wishes, data)
    for split in (data.train, data.validation, data.test):
        check_examples(config, split)
    return RunFolder(run_dir or free_name(Path("runs"), config.data)), config, data


def _same_data(folder: RunFolder, before: str, config: RunConfig) -> Dataset:
    """The data of a run that goes on, which lay at `before`."""
    try:
        data = data_of(config)
    except UsageError as error:
        hint = "start in the folder where the run was trained, or say with --data where they are now"
        raise UsageError(f"{folder.path}: its data cannot be read: {error}; {hint}") from None
    if data.fingerprint != config.data_fingerprint:
        if config.data != before:
            raise UsageError(
                f"--data {config.data} are not the data that {folder.path} was trained on, which were {before}; leave "
                "it out, say where those are now, or start another --run-dir"
            )
        raise CheckpointError(f"the data {config.data} are not what {folder.path} was trained on; restore them")
    return data


def starting_point(
    config: RunConfig, data: Dataset, layout: ParameterLayout, folder: RunFolder, *, resumes: bool, say: Say
) -> tuple[ShardState, str]:
    """The state to start from, and where it comes from."""
    if resumes:
        damaged: list[checkpoint.Damaged] = []
        found = checkpoint.newest(folder.checkpoints, layout, damaged)
        if found is None and damaged:
            raise CheckpointError(f"{damaged[0].why}, and so are all {len(damaged)}; start another --run-dir")
        for file in damaged:
            say(file.line)
        if found is not None:
            over = _over(found.version, config, folder)
            # Who was killed while the run was closing has that to do again, and its end to note.
            is_closing = config == folder.config() and found.version <= config.steps
            if over and not (is_closing and noted_end(folder, config.steps) is None):
                raise NothingLeft(over)
            return found.state, f"continued from version {found.version:,}"
    moments = feature_moments(data.train, data.columns)
    for line in advice(config, moments):
        say(line)
    return fresh_state(config, new_weights(config, data, moments, layout)), "new weights"


def _over(version: int, config: RunConfig, folder: RunFolder) -> str:
    """Why nothing is left to compute at this version, and what to do; empty where something is."""
    if version >= config.steps:
        have = f"{folder.path} is at version {version:,}, which ends a run of {config.steps:,} steps"
        return f"{have}; give more --steps or --epochs to go on"
    lines = [line for line in folder.metrics() if line["version"] <= version]
    if (decision := EarlyStop.of(lines, config.patience)) is not None:
        said = f"{folder.path} was {decision.reason}"
        return f"{said}; give more --patience than {decision.patience}, or 0, to go on"
    return ""


def new_weights(config: RunConfig, data: Dataset, moments: Moments, layout: ParameterLayout) -> npt.NDArray[np.float32]:
    """What a new run begins with, (layout.size,)."""
    rows = rows_of(config.seed, 0, len(data.train), np.empty(prior_of(config.model).beside, np.int64))
    examples = gather(data.train, rows, np.empty((len(rows), data.train.width), np.float32))
    return initial_weights(layout, config.seed, moments, sets_bias=config.bias_from_data, examples=examples)
