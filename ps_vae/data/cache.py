"""Parsed data kept between processes: .npy files in a folder of the user's."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.npy import read_npy
from ps_vae.errors import DataError

__all__ = ["cached", "user_cache"]


def user_cache() -> Path:
    """$XDG_CACHE_HOME/ps_vae, or ~/.cache/ps_vae (XDG Base Directory Specification: only absolute paths count)."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(configured) if os.path.isabs(configured) else Path.home() / ".cache") / "ps_vae"


def cached(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], make: Callable[[], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """The array in `path`, memory-mapped; made and kept where it is missing, damaged or another one.

    Readers never see half a file: it is written under another name, flushed to disk and renamed. Where the folder
    cannot be written to, the array is returned without being kept.
    """
    kept = _kept(path, dtype, shape)
    if kept is None:
        array = make()
        if not _keep(path, array):
            return array
        kept = _kept(path, dtype, shape)
        if kept is None:
            return array
    return kept


def _kept(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any] | None:
    try:
        array = read_npy(path)
    except (OSError, DataError):
        return None
    return array if (array.dtype, array.shape) == (dtype, shape) else None


def _keep(path: Path, array: npt.NDArray[Any]) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            try:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError:
        # A full or read-only disk: the next process makes the array again.
        return False
    return True
