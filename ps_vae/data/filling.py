"""A table with what was missing in it filled in, and everything else as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.columns import Column
from ps_vae.data.tables import open_table

__all__ = ["filled_table", "write_table_file"]


def filled_table(path: Path, columns: tuple[Column, ...], features: npt.NDArray[np.float32]) -> tuple[Any, int]:
    """The table in the file as a pyarrow.Table, and how many values are new in it.

    columns   that are filled, as ps_vae.data.tables has read them
    features  (n, features) in the file's order: numbers are taken as they are, of words the likeliest

    Raises what `open_table` does.
    """
    table = open_table(path)
    count, first = 0, 0
    for column in columns:
        of_column = features[:, first : first + column.features]
        first += column.features
        if column.misses:
            place = table.column_names.index(column.name)
            values, missing = _filled(table.column(place), column, of_column)
            table = table.set_column(place, column.name, values)
            count += missing
    return table, count


def write_table_file(path: Path, table: Any) -> None:
    """As Parquet where the name ends so, else as CSV."""
    from pyarrow import csv, parquet

    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        csv.write_csv(table, path)


def _filled(values: Any, column: Column, features: npt.NDArray[np.float32]) -> tuple[Any, int]:
    import pyarrow
    from pyarrow import compute, types

    missing = compute.is_null(values, nan_is_null=True)
    if column.values:
        likeliest = features.argmax(axis=1) if column.features > 1 else (features[:, 0] > 0.5).astype(np.int64)
        words = pyarrow.array([column.values[number] for number in likeliest])
        new = words.cast(values.type.value_type if types.is_dictionary(values.type) else values.type)
        values = values.cast(new.type)
    elif types.is_boolean(values.type):
        new = pyarrow.array(features[:, 0] > 0.5)
    else:
        # As many digits as float32 has.
        new = pyarrow.array([float(text) for text in features[:, 0].astype(str)])
        values = values.cast("float64")
    filled = compute.if_else(missing, pyarrow.chunked_array([new]), values)
    return filled, int(compute.sum(missing).as_py())
