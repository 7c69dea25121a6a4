"""Tables with named columns: CSV and Parquet, read by pyarrow. Every column is a feature, and has to hold numbers."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.expansion import check_expansion
from ps_vae.errors import DataError, UsageError

__all__ = ["PARQUET_MAGIC", "TEXT_ENDINGS", "read_table"]

PARQUET_MAGIC = b"PAR1"
TEXT_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""How the names of tables end that have no magic number."""

_SHOWN = 40


def read_table(path: Path) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """The rows, (n, columns), in the order of the file, and the columns' names; true and false are 1 and 0.

    Raises UsageError without pyarrow, DataError for a file that cannot be read, for text and for missing values.
    """
    if find_spec("pyarrow") is None:
        raise UsageError(f"{path}: tables need pyarrow: pip install 'ps_vae[tables]'")
    import pyarrow

    try:
        table = _read_text(path) if path.name.lower().endswith(TEXT_ENDINGS) else _read_parquet(path)
    except pyarrow.ArrowException as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a table ({why}); check the file") from None
    rows = np.empty((table.num_rows, table.num_columns), np.float32)
    for number, name in enumerate(table.column_names):
        with np.errstate(over="ignore"):
            # What is too large for float32 is infinite, which is refused with its place.
            rows[:, number] = _numbers(f"{path}: column {name!r}", table.column(number))
    return rows, tuple(table.column_names)


def _read_text(path: Path) -> Any:
    from pyarrow import csv

    separator = "\t" if ".tsv" in path.name.lower() else ","
    table = csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=separator))
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


def _numbers(place: str, column: Any) -> npt.NDArray[Any]:
    from pyarrow import types

    kind = column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)):
        raise DataError(
            f"{place} holds {kind}, such as {_first_that_is_no_number(column)!r}, and numbers are needed; leave it "
            "out, or write it as one column of 0 and 1 for each value (pandas: get_dummies)"
        )
    if column.null_count:
        row = next(number for number, value in enumerate(column.to_pylist()) if value is None)
        raise DataError(
            f"{place} has no value in row {row} (counted from 0), and in {column.null_count:,} rows in all; fill them "
            "in, or leave these rows out"
        )
    numbers: npt.NDArray[Any] = column.cast("float64", safe=False).to_numpy()
    return numbers


def _first_that_is_no_number(column: Any) -> str:
    return next((str(value)[:_SHOWN] for value in column.to_pylist() if not (value is None or _is_number(value))), "")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
