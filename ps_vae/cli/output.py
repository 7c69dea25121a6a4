"""Files that a command writes at the user's wish: a name is judged before anything is computed."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ps_vae.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "NO_PICTURES",
    "apart_from_data",
    "can_draw",
    "checked_output",
    "counted_in",
    "output_of",
    "say_written",
    "write_array",
    "write_arrays",
    "write_table",
]

NO_PICTURES = "pictures need matplotlib: pip install 'ps_vae[demo]'"


def can_draw() -> bool:
    """Whether the library that pictures need is installed."""
    return find_spec("matplotlib") is not None


def checked_output(path: Path | None, run: Path, *kinds: str) -> Path | None:
    """The name that was said, if one was.

    run    whose data it must not overwrite
    kinds  what it may end in, of .png, .csv, .parquet, .npy and .npz

    Raises UsageError for another name, a folder that is not there, a picture without its library, and what
    `apart_from_data` does.
    """
    if path is None:
        return None
    if path.suffix not in kinds:
        raise UsageError(f"--output {path}: the name has to end in {' or '.join(kinds)}")
    if not path.parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}; make it first")
    if path.suffix == ".png" and not can_draw():
        raise UsageError(f"{NO_PICTURES}, or give --output FILE.npy")
    return apart_from_data(path, run)


def apart_from_data(path: Path, run: Path) -> Path:
    """The name of a file that a command writes. Raises UsageError where a run's data lie there, or what is no file."""
    from ps_vae.data import files_of
    from ps_vae.train.run_folder import RunFolder

    if path.exists() and not path.is_file():
        what = "is a folder" if path.is_dir() else "is no file"
        raise UsageError(f"--output {path} {what}; give the name of a file")
    data = files_of(RunFolder(run).config().data)
    for file in data:
        if path.exists() and path.samefile(file):
            raise UsageError(f"--output {path}: that is {file} itself, which {run} was trained on; give another name")
    return path


def output_of(run: Path, name: str, *, are_pictures: bool) -> Path:
    """Where a command writes if nothing was said: pictures where rows are pictures, a table otherwise."""
    if not are_pictures:
        return apart_from_data(run / f"{name}.csv", run)
    if not can_draw():
        raise UsageError(f"{NO_PICTURES}, or give --output FILE.npy")
    (run / "pictures").mkdir(exist_ok=True)
    return apart_from_data(run / "pictures" / f"{name}.png", run)


def counted_in(place: str) -> str:
    """What is said of a file that has numbers of rows; place: that of a split."""
    return f"rows are counted from 0 in {place}"


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]], about: str = "") -> None:
    """Write rows below the names of their columns, and say so; whole or not at all, as all files here.

    A float32 is written in as many digits as tell it from its neighbours.
    """
    from ps_vae.data.whole import whole

    count = 0
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow(row)
            count += 1
    say_written(path, f"{count:,} rows of {len(columns):,} columns", about)


def write_array(path: Path, rows: "npt.NDArray[np.float32]", about: str = "") -> None:
    """Write `rows` as .npy, and say so."""
    import numpy as np

    from ps_vae.data.whole import whole

    with whole(path) as partial, partial.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    say_written(path, _shape(rows), about)


def write_arrays(path: Path, arrays: "Mapping[str, npt.NDArray[Any]]", about: str = "") -> None:
    """Write arrays with their names as .npz, and say so."""
    import numpy as np

    from ps_vae.data.whole import whole

    named: dict[str, Any] = dict(arrays)
    with whole(path) as partial, partial.open("wb") as file:
        # Without `allow_pickle`, which NumPy 2.0 takes for the name of one more array.
        np.savez(file, **named)
    say_written(path, ", ".join(f"{name} {_shape(array)}" for name, array in arrays.items()), about)


def say_written(path: Path, what: str, about: str = "") -> None:
    """The line that a command which writes a file ends with, on standard output; about: of what is in it."""
    print(f"{path}: {what}{about and '; '}{about}", flush=True)


def _shape(array: "npt.NDArray[Any]") -> str:
    return f"{' x '.join(map(str, array.shape))} {array.dtype}"
