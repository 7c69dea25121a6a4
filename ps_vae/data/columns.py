"""Columns of a table as features: numbers as they are, what has a few values as one feature for each of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ps_vae.errors import DataError, UsageError

__all__ = [
    "BIT",
    "NUMBER",
    "OTHERS",
    "VALUES",
    "Column",
    "as_word",
    "coded",
    "codings_of",
    "distinct",
    "listed",
    "numbered",
]

NUMBER, BIT, VALUES = "number", "bit", "values"
"""What a column is to be read as: numbers; 0 and 1, which two words may stand for; or one feature for each value."""

OTHERS = "*"
"""In the place of a name: all columns that are not named."""

_MOST_VALUES = 10_000
_MOST_NUMBERS = 1 << 30
_SHOWN = 40
# Deviations below this part of the mean are lost where numbers become float32.
_TOLD_APART = 1e-6


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
    def is_one_hot(self) -> bool:
        """Whether there is one feature for each value."""
        return len(self.values) == self.features

    @property
    def feature_names(self) -> tuple[str, ...]:
        """`name=value` where there is one feature for each value."""
        return tuple(f"{self.name}={value}" for value in self.values) if self.is_one_hot else (self.name,)

    def cell(self, features: npt.NDArray[np.float32]) -> str | np.float32:
        """What the features (features,) of a row stand for, none missing: a number, or one of the values."""
        if not self.values:
            return features[0]
        return self.values[int(features.argmax() if self.is_one_hot else features[0])]


def codings_of(place: str, names: list[str], wanted: Mapping[str, str | None]) -> dict[str, str]:
    """Of each of the file's columns that is wanted its coding, in the order of the file; None leaves one out.

    Raises UsageError for a column that is named and not there.
    """
    unknown = [name for name in wanted if name != OTHERS and name not in names]
    if unknown:
        raise UsageError(f"{place} has no column {unknown[0]!r}; it has {listed(names)}")
    others = wanted.get(OTHERS)
    codings = {name: wanted.get(name, others) for name in names}
    return {name: coding for name, coding in codings.items() if coding is not None}


def listed(names: list[str]) -> str:
    """Names of columns, as many as fit in a message."""
    text = ", ".join(map(repr, names))
    return text if len(text) <= 10 * _SHOWN else f"{text[: 10 * _SHOWN]} ..."


def coded(place: str, name: str, values: Any, coding: str) -> tuple[Column, npt.NDArray[np.float32]]:
    """A column as features (rows, features).

    values  a pyarrow array of numbers, truth values or text, with nulls where a value is missing

    Raises DataError for what cannot be read so.
    """
    values = _plain(place, name, values)
    is_text = _is_text(values.type)
    if is_text and coding == NUMBER:
        words = [str(value) for value in values.to_pylist() if value is not None]
        first = next((word for word in words if not _is_number(word)), words[0] if words else "")
        word = as_word(name)
        raise DataError(
            f"{place} holds text, such as {first[:_SHOWN]!r}, and numbers are needed; leave the column out, or give "
            f"each its likelihood: --likelihood '{word}:categorical,{OTHERS}:gaussian-feature' ({word}:none leaves it "
            "out)"
        )
    if coding == VALUES or (coding == BIT and is_text):
        return _by_value(place, name, values, coding)
    numbers = _numbers(place, values)
    missing = np.isnan(numbers)
    if missing.all():
        raise DataError(f"{place} has no value in any row; {_left_out(name)}")
    return Column(name, (), 1, bool(missing.any())), numbers.reshape(-1, 1)


def numbered(place: str, name: str, values: Any) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The different values in words, in order, and of each row the number of its value; -1 where it has none.

    Raises DataError for what has none, too many, or no values that can be told apart.
    """
    values = _plain(place, name, values)
    found = distinct(values)
    if not found:
        raise DataError(f"{place} has no value in any row; {_left_out(name)}")
    if len(found) > _MOST_VALUES:
        raise DataError(
            f"{place} has {len(found):,} different values, and {_MOST_VALUES:,} can be told apart; {_left_out(name)}"
        )
    from pyarrow import array, compute

    numbers = compute.index_in(values, value_set=array(found, values.type)).fill_null(-1)
    return tuple(map(_in_words, found)), numbers.to_numpy(zero_copy_only=False).astype(np.int64)


def distinct(values: Any) -> list[Any]:
    """The different values of a pyarrow array, in order; what is missing is none."""
    from pyarrow import compute, types

    found = [value for value in compute.unique(values).to_pylist() if value is not None]
    if types.is_floating(values.type):
        found = [value for value in found if value == value]
    return sorted(found)


def _plain(place: str, name: str, values: Any) -> Any:
    """Numbers, truth values or text; DataError for other types."""
    from pyarrow import string, types

    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if types.is_null(kind):
        return values.cast("float64")
    if str(kind) == "string_view":
        return values.cast(string())
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
    if is_number or _is_text(kind):
        return values
    raise DataError(f"{place} holds {kind}, and numbers or text are needed; convert it, or {_left_out(name)}")


def _left_out(name: str) -> str:
    word = as_word(name)
    return f"leave the column out: --likelihood '{word}:none,{OTHERS}:gaussian-feature', or {word}:none among yours"


def as_word(name: str) -> str:
    """As --likelihood is told it: in the quotes of CSV where there are commas in it."""
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n') else name


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _numbers(place: str, values: Any) -> npt.NDArray[np.float32]:
    """As float32, NaN where a value is missing. Raises DataError for what float32 cannot hold or tell apart."""
    exact = np.asarray(values.cast("float64", safe=False).to_numpy(zero_copy_only=False), np.float64)
    with np.errstate(over="ignore"):
        numbers = exact.astype(np.float32)
    if np.isinf(numbers).any():
        row = int(np.isinf(numbers).argmax())
        raise DataError(
            f"{place} is {exact[row]} in row {row} (counted from 0); float32 numbers are needed, so replace it, or "
            "leave the row out"
        )
    there = exact[~np.isnan(exact)]
    if there.size and 0 < there.std() < _TOLD_APART * abs(there.mean()):
        raise DataError(
            f"{place} has values of about {there.mean():.6g} that differ by {there.std():.3g}, which float32 cannot "
            "tell apart; subtract their mean"
        )
    return numbers


def _by_value(place: str, name: str, values: Any, coding: str) -> tuple[Column, npt.NDArray[np.float32]]:
    names, numbers = numbered(place, name, values)
    missing = numbers < 0
    if coding == BIT:
        if len(names) != 2:
            raise DataError(
                f"{place} holds {len(names):,} different words, and the Bernoulli likelihood is for two; take "
                f"{as_word(name)}:categorical"
            )
        features = numbers.astype(np.float32).reshape(-1, 1)
    else:
        if len(numbers) * len(names) > _MOST_NUMBERS:
            raise DataError(
                f"{place} has {len(names):,} different values in {len(numbers):,} rows, and one feature for each would "
                f"be {4e-9 * len(numbers) * len(names):.1f} GB; merge its rare values, or {_left_out(name)}"
            )
        features = np.zeros((len(numbers), len(names)), np.float32)
        features[np.arange(len(numbers)), numbers] = 1
    features[missing] = np.nan
    return Column(name, names, features.shape[1], bool(missing.any())), features


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
