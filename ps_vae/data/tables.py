"""Tables with named columns: CSV and Parquet, read by pyarrow."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.columns import NUMBER, OTHERS, VALUES, Column, coded, codings_of
from ps_vae.data.expansion import check_expansion
from ps_vae.data.labels import Labels
from ps_vae.errors import DataError, UsageError

__all__ = ["PARQUET_MAGIC", "TEXT_ENDINGS", "Table", "open_table", "read_table"]

PARQUET_MAGIC = b"PAR1"
TEXT_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""How the names of tables end that have no magic number."""

_SHOWN = 40


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """rows (n, features) float32 in the order of the file, NaN where a value is missing; what the features are; and
    the labels, where a column holds them."""

    rows: npt.NDArray[np.float32]
    columns: tuple[Column, ...]
    labels: Labels | None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features."""
        return tuple(name for column in self.columns for name in column.feature_names)


def read_table(path: Path, wanted: Mapping[str, str] | None = None, labels: str = "") -> Table:
    """Columns of a table as features; true and false are 1 and 0.

    wanted  names, or OTHERS, and how each is to be read (ps_vae.data.columns); None: all, as numbers, none missing
    labels  name of the column that holds labels, which is no feature then; "": none does

    Raises UsageError without pyarrow and for names that are not there, DataError for a file that cannot be read and
    for columns that are not what they should be.
    """
    table = open_table(path)
    names = list(table.column_names)
    codings = codings_of(str(path), names, {OTHERS: NUMBER} if wanted is None else wanted)
    found = None
    if labels:
        found = _labels(path, table, labels)
        codings.pop(labels, None)
    if not codings:
        raise UsageError(f"{path}: no column is left to train on; name some, or '{OTHERS}' for all that are not named")
    columns, parts = [], []
    for name, coding in codings.items():
        column, part = coded(_place(path, name), name, _values(table, name), coding)
        if wanted is None and column.misses:
            raise _missing(path, name, part)
        columns.append(column)
        parts.append(part)
    return Table(np.ascontiguousarray(np.concatenate(parts, axis=1)), tuple(columns), found)


def open_table(path: Path) -> Any:
    """The pyarrow.Table of a file. Raises UsageError without pyarrow, DataError for what is no table."""
    if find_spec("pyarrow") is None:
        raise UsageError(f"{path}: tables need pyarrow: pip install 'ps_vae[tables]'")
    import pyarrow

    try:
        table = _read_text(path) if path.name.lower().endswith(TEXT_ENDINGS) else _read_parquet(path)
    except pyarrow.ArrowException as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a table ({why}); check the file") from None
    twice = [name for name in table.column_names if table.column_names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has {table.column_names.count(twice[0])} columns {twice[0]!r}; name them apart")
    if not table.num_rows:
        raise DataError(f"{path}: no rows below the names of the columns; give a table with rows")
    return table


def _read_text(path: Path) -> Any:
    from pyarrow import csv

    separator = "\t" if ".tsv" in path.name.lower() else ","
    table = csv.read_csv(
        path,
        parse_options=csv.ParseOptions(delimiter=separator),
        convert_options=csv.ConvertOptions(strings_can_be_null=True),
    )
    if all(_is_number(name) for name in table.column_names):
        raise DataError(
            f"{path}: its first row, {', '.join(table.column_names)[:_SHOWN]}, has numbers where the columns' names "
            "stand; put a row of names above it"
        )
    return table


def _read_parquet(path: Path) -> Any:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        check_expansion(path, path.stat().st_size, file.metadata.num_rows * file.metadata.num_columns)
        return file.read()


def _values(table: Any, name: str) -> Any:
    chunks = table.column(name).combine_chunks()
    # What it gives for several chunks, and for none, differs between versions of pyarrow.
    return chunks.combine_chunks() if hasattr(chunks, "combine_chunks") else chunks


def _labels(path: Path, table: Any, name: str) -> Labels:
    if name not in table.column_names:
        raise UsageError(f"{path} has no column {name!r}; it has {', '.join(map(repr, table.column_names))}")
    column, one_hot = coded(_place(path, name), name, _values(table, name), VALUES)
    if column.misses:
        raise _missing(path, name, one_hot)
    return Labels(column.values, one_hot.argmax(axis=1))


def _missing(path: Path, name: str, features: npt.NDArray[np.float32]) -> DataError:
    missing = np.isnan(features[:, 0])
    return DataError(
        f"{_place(path, name)} has no value in row {int(missing.argmax())} (counted from 0), and in {missing.sum():,} "
        f"rows in all; fill them in, leave these rows out, or name a likelihood for each column, which leaves missing "
        f"values out of it: --likelihood '{name}:gaussian-feature,*:gaussian-feature'"
    )


def _place(path: Path, name: str) -> str:
    return f"{path}: column {name!r}"


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
