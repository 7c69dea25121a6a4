"""Columns of a table as features: numbers as they are, what has a few values as one feature for each of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ps_vae.errors import DataError, UsageError

__all__ = ["BIT", "NUMBER", "OTHERS", "VALUES", "Column", "coded", "codings_of"]

NUMBER, BIT, VALUES = "number", "bit", "values"
"""What a column is to be read as: numbers; 0 and 1, which two words may stand for; or one feature for each value."""

OTHERS = "*"
"""In the place of a name: all columns that are not named."""

_MOST_VALUES = 10_000
_MOST_NUMBERS = 1 << 30
_SHOWN = 40


class Column(NamedTuple):
    """A column of a table, as features.

    name      in the file
    values    what the features stand for: of a one-hot column each its own, of a bit what 0 and 1 are; () for numbers
    features  how many
    misses    whether it has no value in some row; all its features are NaN there
    """

    name: str
    values: tuple[str, ...]
    features: int
    misses: bool

    @property
    def feature_names(self) -> tuple[str, ...]:
        """`name=value` where there is one feature for each value."""
        return (self.name,) if self.features == 1 else tuple(f"{self.name}={value}" for value in self.values)


def codings_of(place: str, names: list[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Of each of the file's columns that is wanted its coding, in the order of the file.

    Raises UsageError for a wanted column that is not there, and where nothing is left.
    """
    unknown = [name for name in wanted if name != OTHERS and name not in names]
    if unknown:
        listed = ", ".join(map(repr, names))
        listed = listed if len(listed) <= 10 * _SHOWN else f"{listed[: 10 * _SHOWN]} ..."
        raise UsageError(f"{place} has no column {unknown[0]!r}; it has {listed}")
    others = wanted.get(OTHERS)
    codings = {name: wanted.get(name, others) for name in names}
    return {name: coding for name, coding in codings.items() if coding is not None}


def coded(place: str, name: str, values: Any, coding: str) -> tuple[Column, npt.NDArray[np.float32]]:
    """A column as features (rows, features).

    values  a pyarrow array of numbers, truth values or text, with nulls where a value is missing

    Raises DataError for what cannot be read so.
    """
    from pyarrow import types

    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    is_text = types.is_string(values.type) or types.is_large_string(values.type)
    if is_text and coding == NUMBER:
        words = [str(value) for value in values.to_pylist() if value is not None]
        first = next((word for word in words if not _is_number(word)), words[0] if words else "")
        raise DataError(
            f"{place} holds text, such as {first[:_SHOWN]!r}, and numbers are needed; leave the column out, or give "
            f"each its likelihood: --likelihood '{name}:categorical,{OTHERS}:gaussian-feature'"
        )
    if values.null_count == len(values):
        raise DataError(f"{place} has no value in any row; leave the column out")
    if coding == VALUES or (coding == BIT and is_text):
        return _by_value(place, name, values, coding)
    numbers = numbers_of(place, values)
    missing = np.isnan(numbers)
    if missing.all():
        raise DataError(f"{place} has no value in any row; leave the column out")
    return Column(name, (), 1, bool(missing.any())), numbers.reshape(-1, 1)


def numbers_of(place: str, values: Any) -> npt.NDArray[np.float32]:
    """As float32, NaN where a value is missing. Raises DataError for what holds no numbers."""
    from pyarrow import types

    kind = values.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)):
        raise DataError(f"{place} holds {kind}, and numbers or text are needed; leave the column out, or convert it")
    # What is too large for float32 becomes infinite, which is refused with its place.
    with np.errstate(over="ignore"):
        numbers = values.cast("float64", safe=False).to_numpy(zero_copy_only=False)
        return np.asarray(numbers, np.float64).astype(np.float32)


def _by_value(place: str, name: str, values: Any, coding: str) -> tuple[Column, npt.NDArray[np.float32]]:
    from pyarrow import compute, scalar, types

    if types.is_floating(values.type):
        values = compute.if_else(compute.is_nan(values), scalar(None, values.type), values)
    encoded = values.dictionary_encode()
    found = encoded.dictionary.to_pylist()
    if coding == BIT and len(found) != 2:
        raise DataError(
            f"{place} holds {len(found):,} different words, and the Bernoulli likelihood is for two; take "
            f"{name}:categorical"
        )
    if len(found) > _MOST_VALUES:
        raise DataError(
            f"{place} has {len(found):,} different values, and {_MOST_VALUES:,} can be told apart; leave the column out"
        )
    if coding == VALUES and len(values) * len(found) > _MOST_NUMBERS:
        raise DataError(
            f"{place} has {len(found):,} different values in {len(values):,} rows, and one feature for each would be "
            f"{4e-9 * len(values) * len(found):.1f} GB; leave the column out, or merge its rare values"
        )
    order = sorted(range(len(found)), key=found.__getitem__)
    place_of = np.empty(len(found), np.int64)
    place_of[order] = np.arange(len(found))
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    missing = codes < 0
    labels = place_of[codes]
    names = tuple(_in_words(found[number]) for number in order)
    if coding == BIT:
        features = labels.astype(np.float32).reshape(-1, 1)
    else:
        features = np.zeros((len(codes), len(found)), np.float32)
        features[np.arange(len(codes)), labels] = 1
    features[missing] = np.nan
    return Column(name, names, features.shape[1], bool(missing.any())), features


def _in_words(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
