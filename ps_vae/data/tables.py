"""Tables with named columns: CSV and Parquet, read by pyarrow."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.columns import NUMBER, OTHERS, Column, as_word, coded, codings_of, listed, numbered
from ps_vae.data.expansion import check_expansion
from ps_vae.data.labels import Labels
from ps_vae.errors import DataError, UsageError

__all__ = ["PARQUET_MAGIC", "TEXT_ENDINGS", "Table", "names_of", "open_table", "read_table", "separator_of"]

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


def read_table(path: Path, wanted: Mapping[str, str | None] | None = None, labels: str = "") -> Table:
    """Columns of a table as features; true and false are 1 and 0.

    wanted  names, or OTHERS, and how each is to be read (ps_vae.data.columns), None for not at all; None in the place
            of it: all, as numbers, none missing
    labels  name of the column that holds labels, which is no feature then; "": none does

    Raises UsageError without pyarrow and for names that are not there, DataError for a file that cannot be read and
    for columns that are not what they should be.
    """
    table = open_table(path)
    names = names_of(table)
    codings = codings_of(str(path), names, {OTHERS: NUMBER} if wanted is None else wanted)
    found = None
    if labels:
        found = _labels(path, table, labels)
        codings.pop(labels, None)
    if not codings:
        raise UsageError(f"{path}: no column is left to train on; name some, or '{OTHERS}' for all that are not named")
    columns, parts = [], []
    for name, coding in codings.items():
        column, part = coded(_place(path, name), name, _values(table, names.index(name)), coding)
        if wanted is None and column.misses:
            raise _missing(path, name, part)
        columns.append(column)
        parts.append(part)
    return Table(np.ascontiguousarray(np.concatenate(parts, axis=1)), tuple(columns), found)


def separator_of(path: Path) -> str:
    """What stands between the cells of a text table, by its name."""
    return "\t" if ".tsv" in path.name.lower() else ","


def open_table(path: Path, *, as_text: bool = False) -> Any:
    """The pyarrow.Table of a file, of a text one perhaps with its cells as they are written.

    Raises UsageError without pyarrow, DataError for what is no table.
    """
    if find_spec("pyarrow") is None:
        raise UsageError(f"{path}: tables need pyarrow: pip install 'ps_vae[tables]'")
    import pyarrow

    try:
        is_text = path.name.lower().endswith(TEXT_ENDINGS)
        table = _read_text(path, as_text=as_text) if is_text else _read_parquet(path)
    except pyarrow.ArrowException as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a table ({why}); check the file") from None
    names = names_of(table)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path} has {names.count(twice[0])} columns {twice[0]!r}; name them apart")
    if not table.num_rows:
        raise DataError(f"{path}: no rows below the names of the columns; give a table with rows")
    return table


def names_of(table: Any) -> list[str]:
    """By which a table's columns are told: those of the file without the spaces around them."""
    return [name.strip() for name in table.column_names]


def _read_text(path: Path, *, as_text: bool) -> Any:
    from pyarrow import csv, string, types

    parsed = csv.ParseOptions(delimiter=separator_of(path), newlines_in_values=True)
    table = csv.read_csv(path, parse_options=parsed, convert_options=csv.ConvertOptions(strings_can_be_null=True))
    binary = [field.name for field in table.schema if types.is_binary(field.type)]
    if binary:
        raise DataError(f"{path}: column {binary[0]!r} is not in UTF-8; save the file in that encoding")
    if table.num_columns == 1 and any(mark in table.column_names[0] for mark in ";\t,"):
        raise DataError(
            f"{path} is one column, {table.column_names[0][:_SHOWN]!r}: its cells seem to be separated by something "
            "else; write commas, or tabs in a file whose name ends in .tsv"
        )
    if as_text:
        kinds = dict.fromkeys(table.column_names, string())
        return csv.read_csv(path, parse_options=parsed, convert_options=csv.ConvertOptions(column_types=kinds))
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


def _values(table: Any, place: int) -> Any:
    chunks = table.column(place).combine_chunks()
    # What it gives for several chunks, and for none, differs between versions of pyarrow.
    return chunks.combine_chunks() if hasattr(chunks, "combine_chunks") else chunks


def _labels(path: Path, table: Any, name: str) -> Labels:
    from pyarrow import types

    known = names_of(table)
    if name not in known:
        raise UsageError(f"{path} has no column {name!r}; it has {listed(known)}")
    place, values = _place(path, name), _values(table, known.index(name))
    names, numbers = numbered(place, name, values)
    if (numbers < 0).any():
        raise DataError(
            f"{place} has no value in row {int((numbers < 0).argmax())} (counted from 0), and in "
            f"{(numbers < 0).sum():,} rows in all; a label is needed in every row: fill them in, or leave these out"
        )
    if types.is_floating(values.type) and not all(_is_whole(word) for word in names):
        raise DataError(f"{place} holds numbers such as {names[0]}; labels are words or whole numbers")
    return Labels(names, numbers)


def _missing(path: Path, name: str, features: npt.NDArray[np.float32]) -> DataError:
    missing = np.isnan(features[:, 0])
    return DataError(
        f"{_place(path, name)} has no value in row {int(missing.argmax())} (counted from 0), and in {missing.sum():,} "
        f"rows in all; fill them in, leave these rows out, or name a likelihood for each column, which leaves missing "
        f"values out of it: --likelihood '{as_word(name)}:gaussian-feature,*:gaussian-feature'"
    )


def _place(path: Path, name: str) -> str:
    return f"{path}: column {name!r}"


def _is_whole(word: str) -> bool:
    return float(word).is_integer()


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
