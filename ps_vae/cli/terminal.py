"""What commands write: results on standard output, everything else on standard error.

Nothing here imports NumPy, so that `--help` is quick.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["Say", "count", "megabytes", "nats", "print_columns", "print_json", "print_table", "say"]

Say = Callable[[str], None]

_UNKNOWN = "-"


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


def print_json(values: dict[str, Any]) -> None:
    """The one object on standard output; what is not a finite number becomes null, which JSON can say."""
    print(json.dumps(_plain(values), allow_nan=False), flush=True)


def print_table(rows: Iterable[tuple[str, str]]) -> None:
    """Labels and values in two columns, however wide the terminal."""
    print_columns([list(row) for row in rows])


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Rows of the same number of cells, left-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip(), flush=True)


def count(number: float | None) -> str:
    """12,345"""
    return _UNKNOWN if number is None else f"{number:,.0f}"


def nats(value: float | None) -> str:
    """-106.712"""
    return _UNKNOWN if value is None else f"{value:.3f}"


def megabytes(number: float | None) -> str:
    """12.3 MB or 1,234 MB, of 10^6 bytes"""
    return _UNKNOWN if number is None else f"{number / 1e6:,.{1 if number < 1e8 else 0}f} MB"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
