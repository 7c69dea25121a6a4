"""What commands write: results on standard output, everything else on standard error.

Nothing here imports NumPy, so that `--help` is quick.
"""

import contextlib
import datetime
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ps_vae.errors import UsageError
from ps_vae.lines import Line

__all__ = [
    "LOG_FORMATS",
    "Say",
    "check_log_format",
    "count",
    "megabytes",
    "nats",
    "print_columns",
    "print_json",
    "print_table",
    "say",
    "speaker",
]

Say = Callable[[str], None]

LOG_FORMATS = ("text", "json")

_UNKNOWN = "-"


def say(text: str) -> None:
    """A line for the person who watches. What peers call themselves cannot make two of it, or move the cursor."""
    _tell("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text))


def say_json(text: str) -> None:
    """The same as one JSON object: time (UTC), level, event, process, message, and the fields of the event."""
    line = Line.of(text)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    about = {"time": now, "level": line.level, "event": line.event, "process": os.getpid(), "message": str(line)}
    _tell(json.dumps(_plain({**line.fields, **about}), allow_nan=False))


def speaker(log_format: str) -> Say:
    """What says the lines of a program in one of LOG_FORMATS."""
    return say_json if check_log_format(log_format) == "json" else say


def check_log_format(log_format: str) -> str:
    """Raises UsageError for a format that there is not."""
    if log_format not in LOG_FORMATS:
        raise UsageError(f"--log-format {log_format}: choose one of {', '.join(LOG_FORMATS)}")
    return log_format


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


def _tell(line: str) -> None:
    # A log on a full disk, or a reader that has gone, is no reason to stop a run: nobody is left to be told.
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
