"""Files that a command writes at the user's wish: a name is judged before anything is computed."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ps_vae.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["NO_PICTURES", "can_draw", "checked_output", "say_written", "write_array"]

NO_PICTURES = "pictures need matplotlib: pip install 'ps_vae[demo]'"


def can_draw() -> bool:
    """Whether the library that pictures need is installed."""
    return find_spec("matplotlib") is not None


def checked_output(path: Path | None, otherwise: Path, *, pictures: bool) -> Path:
    """Where to write: `path`, or what is taken where nothing was said.

    pictures  whether the name may end in .png, too, besides .npy

    Raises UsageError for another name, a folder that is not there, and a picture without its library.
    """
    chosen = path or otherwise
    kinds = [".png", ".npy"] if pictures else [".npy"]
    if chosen.suffix not in kinds:
        raise UsageError(f"--output {chosen}: the name has to end in {' or '.join(kinds)}")
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}; make it first")
    if chosen.suffix == ".png" and not can_draw():
        raise UsageError(f"{NO_PICTURES}, or give --output FILE.npy")
    return chosen


def write_array(path: Path, rows: "npt.NDArray[np.float32]") -> None:
    """Write `rows` as .npy, and say so. Raises OSError where the disk refuses."""
    import numpy as np

    with path.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    say_written(path, f"{' x '.join(map(str, rows.shape))} {rows.dtype}")


def say_written(path: Path, what: str) -> None:
    """The line that a command which writes a file ends with, on standard output."""
    print(f"{path}: {what}", flush=True)
