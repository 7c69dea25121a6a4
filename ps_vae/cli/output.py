"""Files that a command writes at the user's wish: a name is judged before anything is computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ps_vae.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["check_output", "write_array"]


def check_output(path: Path, kinds: Sequence[str]) -> None:
    """Raise UsageError where the name does not end in one of `kinds` (".npy", ".png") or its folder is not there."""
    if path.suffix.lower() not in kinds:
        raise UsageError(f"--output {path}: the name has to end in {' or '.join(kinds)}")
    if not path.parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}; make it first")


def write_array(path: Path, rows: "npt.NDArray[Any]") -> None:
    """Write `rows` as .npy, and say so on standard output. Raises OSError where the disk refuses."""
    import numpy as np

    with path.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    print(f"{path}: {' x '.join(f'{length:,}' for length in rows.shape)} {rows.dtype}", flush=True)
