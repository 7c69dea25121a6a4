"""The table of a run with what is missing in it filled in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ps_vae.data import Column, looked_for
from ps_vae.errors import DataError, UsageError
from ps_vae.train.arithmetic import use_one_thread
from ps_vae.train.row_tasks import over_rows
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.trained import TrainedModel
from ps_vae.vae.imputation import impute

__all__ = ["impute_table", "table_of"]

Floats = npt.NDArray[np.float32]


def table_of(run_dir: Path) -> Path:
    """The file of a run's table. Raises UsageError where it was trained on none, DataError where it is gone."""
    config = RunFolder(run_dir).config()
    if not config.model.variables:
        raise UsageError(
            f"{run_dir} was not trained on a table with a likelihood for each column, so nothing is missing; train "
            "with --likelihood 'COLUMN:NAME,*:NAME' on a CSV or Parquet file"
        )
    path = Path(config.data).expanduser()
    if not path.is_file():
        raise DataError(
            f"{path}, which {run_dir} was trained on, is not there{looked_for(path)}; start in the folder where the "
            "run was trained, and put the data of that day back if they are gone"
        )
    return path


def impute_table(
    run_dir: Path,
    *,
    samples: int,
    processes: int,
    progress: Callable[[int, int], None],
    say: Callable[[str], None],
    version: int | str | None = None,
) -> tuple[tuple[Column, ...], Floats]:
    """What the features of a run's table are, and those of all its rows, (n, inputs), in the file's order.

    Of columns that are 0 or 1 wherever there is a value, what was missing is the likelier of the two. What cannot be
    told, because the model has no place for the rest of the row, stays NaN.

    samples   importance samples a row

    Raises UsageError where the run has no table with a likelihood for each column, DataError or CheckpointError where
    it cannot be read.
    """
    if samples < 1 or processes < 1:
        raise UsageError("--samples and --processes are at least 1")
    use_one_thread()
    model = TrainedModel.open(run_dir, version=version, say=say)
    parts = over_rows(model, model.table_size, _impute, samples, processes=processes, progress=progress)
    filled = np.concatenate(parts)
    _round_bits(filled, model)
    return model.data.variables, filled


def _impute(model: TrainedModel, start: int, stop: int, samples: int) -> Floats:
    names = np.arange(start, stop, dtype=np.int64)
    rows = model.table_rows(start, stop)
    return impute(model.parameters, rows, samples=samples, seed=model.config.seed, rows=names)


def _round_bits(filled: Floats, model: TrainedModel) -> None:
    table = model.data.train.array
    feature = 0
    for variable in model.config.model.variables:
        if variable.likelihood == "bernoulli":
            values = table[:, feature]
            missing = np.isnan(values)
            if np.isin(values[~missing], (0, 1)).all():
                filled[missing, feature] = np.round(filled[missing, feature])
        feature += variable.features
