"""A table with what was missing in it filled in, and everything else as it was.

From text to text the cells stay as they are written. Elsewhere a column that is filled in keeps its type, but for whole
numbers that get a fraction between them: these become float64. What pandas notes in a file (its index, its own
types) stays.
"""

import csv
import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ps_vae.data.columns import Column, distinct
from ps_vae.data.tables import TEXT_ENDINGS, names_of, open_table, separator_of
from ps_vae.data.whole import whole
from ps_vae.errors import DataError

__all__ = ["Filled", "check_target", "filled_table", "is_text", "write_table_file"]


class Filled(NamedTuple):
    """How many values of a table are new, and in which rows (from 0) some are still missing."""

    values: int
    left: tuple[int, ...]


def is_text(path: Path) -> bool:
    """Whether a table's file is CSV or TSV, by its name."""
    return path.name.lower().endswith(TEXT_ENDINGS)


def check_target(source: Path, target: Path) -> None:
    """DataError where the table could not be written there, before anything is computed."""
    if is_text(source) or not is_text(target):
        return
    from pyarrow import types

    table = open_table(source)
    nested = [field.name for field in table.schema if types.is_nested(field.type) or types.is_binary(field.type)]
    if nested:
        raise DataError(
            f"{target}: column {nested[0]!r} of {source} holds {table.schema.field(nested[0]).type}, which CSV cannot "
            "hold; give --output FILE.parquet"
        )


def filled_table(
    source: Path, target: Path, columns: tuple[Column, ...], features: npt.NDArray[np.float32]
) -> tuple[Any, Filled]:
    """The table in the file as a pyarrow.Table to be written to `target`, and what is new in it.

    columns   that are filled, as ps_vae.data.tables has read them
    features  (n, features) in the file's order: numbers are taken as they are, of words the likeliest; NaN leaves a
              value missing

    Raises what `open_table` does.
    """
    from pyarrow import compute

    table = open_table(source)
    names = names_of(table)
    keeps_text = is_text(source) and is_text(target)
    result = open_table(source, as_text=True) if keeps_text else table
    count, first, left = 0, 0, np.zeros(len(features), bool)
    for column in columns:
        of_column = features[:, first : first + column.features]
        first += column.features
        if not column.misses:
            continue
        place = names.index(column.name)
        values = table.column(place).combine_chunks()
        missing = compute.is_null(values, nan_is_null=True)
        is_missing = missing.to_numpy(zero_copy_only=False)
        is_left = np.asarray(np.isnan(of_column).any(axis=1))
        count += int((is_missing & ~is_left).sum())
        left |= is_missing & is_left
        new = _new_values(values, column, of_column)
        for row in np.flatnonzero(is_left):
            new[row] = None
        old = result.column(place).combine_chunks() if keeps_text else values
        filled = _in_text(old, values, new, missing) if keeps_text else _in_place(old, new, missing)
        field = result.schema.field(place)
        result = result.set_column(place, field.with_type(filled.type), filled)
        if filled.type != field.type:
            result = _noted(source, result, field.name, filled.type)
    return result, Filled(count, tuple(np.flatnonzero(left).tolist()))


def write_table_file(path: Path, table: Any) -> None:
    """As Parquet where the name ends so, else as CSV. DataError for what cannot be held so, else as `whole`."""
    import pyarrow
    from pyarrow import parquet

    try:
        with whole(path) as temporary:
            if path.suffix == ".parquet":
                parquet.write_table(table, temporary)
            else:
                _write_text(path, temporary, table)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: cannot be written ({' '.join(str(error).split())}); try another ending") from None


def _new_values(values: Any, column: Column, features: npt.NDArray[np.float32]) -> list[Any]:
    from pyarrow import types

    if column.values:
        likeliest = features.argmax(axis=1) if column.is_one_hot else (features[:, 0] > 0.5).astype(np.int64)
        found = distinct(values.cast(values.type.value_type) if types.is_dictionary(values.type) else values)
        return [found[number] for number in likeliest]
    if types.is_boolean(values.type):
        return [bool(value) for value in features[:, 0] > 0.5]
    # As many digits as float32 has.
    numbers = [float(text) for text in features[:, 0].astype(str)]
    is_whole = types.is_integer(values.type) and all(number.is_integer() or number != number for number in numbers)
    return [int(number) if number == number else None for number in numbers] if is_whole else numbers


def _in_place(values: Any, new: list[Any], missing: Any) -> Any:
    import pyarrow
    from pyarrow import compute, types

    kind = values.type.value_type if types.is_dictionary(values.type) else values.type
    if any(isinstance(value, float) for value in new) and not types.is_floating(kind):
        kind = pyarrow.float64()
    filled = compute.if_else(missing, pyarrow.array(new).cast(kind), values.cast(kind, safe=False))
    if not types.is_dictionary(values.type):
        return filled
    # Parquet has dictionaries of words alone, and words are filled in with words that are there.
    numbers = compute.index_in(filled, value_set=values.dictionary).cast(values.type.index_type)
    return pyarrow.DictionaryArray.from_arrays(numbers, values.dictionary, ordered=values.type.ordered)


def _noted(source: Path, table: Any, name: str, kind: Any) -> Any:
    """pandas reads a column as what it has noted of it: now numbers of a kind."""
    notes = table.schema.metadata or {}
    if b"pandas" not in notes:
        return table
    dtype = np.dtype(kind.to_pandas_dtype()).name
    try:
        of_pandas = json.loads(notes[b"pandas"])
        for column in of_pandas["columns"]:
            if column["field_name"] == name:
                column |= {"pandas_type": dtype, "numpy_type": dtype, "metadata": None}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{source}: what pandas has noted in it makes no sense ({error!r}); write it anew") from None
    return table.replace_schema_metadata(notes | {b"pandas": json.dumps(of_pandas).encode()})


def _in_text(written: Any, values: Any, new: list[Any], missing: Any) -> Any:
    """As the file writes such values, where it does."""
    import pyarrow

    spelled = dict(zip(reversed(values.to_pylist()), reversed(written.to_pylist()), strict=True))
    cells = zip(missing.to_pylist(), written.to_pylist(), new, strict=True)
    return pyarrow.array(
        [spelled.get(value, str(value)) if is_new and value is not None else cell for is_new, cell, value in cells]
    )


def _write_text(path: Path, temporary: Path, table: Any) -> None:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(temporary, "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator_of(path), lineterminator="\n")
        writer.writerow(table.column_names)
        for batch in table.to_batches():
            writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
