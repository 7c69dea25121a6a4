"""What every benchmark says beside its figures: the machine, the libraries' versions, medians, ratios, a table.

    python benchmarks/report.py        the machine, as one JSON object

Figures are taken round after round; a round in which a row has none holds None.
"""

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy  # noqa: F401 (loads the BLAS that `machine` looks at)
import threadpoolctl

__all__ = ["machine", "ratio", "summary", "table", "versions"]

# What decides how wide the vectors are that a kernel computes with.
_FLAGS = ("avx2", "fma", "avx512f")


def machine() -> dict[str, Any]:
    """This process's machine as plain data.

    cpu             the model's name
    cores           that this process may use
    flags           those of avx2, fma, avx512f that the CPU has
    memory_gib      of the whole machine
    system, python  kernel and interpreter
    blas            NumPy's: its name and version, and the CPU family that its kernels are for
    blas_variables  the environment's words to it
    """
    cpu = _first_of_each(Path("/proc/cpuinfo"))
    memory_kib = int(_first_of_each(Path("/proc/meminfo"))["MemTotal"].split()[0])
    return {
        "cpu": cpu.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _FLAGS if flag in cpu.get("flags", "").split()],
        "memory_gib": round(memory_kib / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "blas": [
            f"{library['internal_api']} {library['version']}, {library.get('architecture', 'unknown')} kernels"
            for library in threadpoolctl.threadpool_info()
            if library["user_api"] == "blas"
        ],
        "blas_variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith("OPENBLAS_")},
    }


def versions(names: Sequence[str]) -> dict[str, str | None]:
    """Version of each distribution; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def summary(figures: Sequence[float | None]) -> dict[str, float] | None:
    """median, least and most over the rounds that have a figure; None where no round has one."""
    known = [figure for figure in figures if figure is not None]
    if not known:
        return None
    return {"median": statistics.median(known), "least": min(known), "most": max(known)}


def ratio(figures: Sequence[float | None], others: Sequence[float | None]) -> float | None:
    """Median over the rounds of figure / other: what slowed both down in a round does not count.

    None where no round has both. Raises ValueError for unequal numbers of rounds.
    """
    pairs = [(a, b) for a, b in zip(figures, others, strict=True) if a is not None and b is not None]
    return statistics.median(a / b for a, b in pairs) if pairs else None


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table whose columns also line up as plain text.

    rows     one mapping a line, from a column's title to its value; None or missing is drawn as a dash
    columns  title -> format of its numbers, such as ",.0f"; "" for text, which stands on the left
    """
    cells = [[_cell(row.get(title), form) for title, form in columns.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    forms = list(columns.values())
    marks = ["-" * (width - 1) + ("-" if form == "" else ":") for width, form in zip(widths, forms, strict=True)]
    lines = [list(columns), marks, *cells]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if form == "" else cell.rjust(width)
            for cell, width, form in zip(line, widths, forms, strict=True)
        )
        + " |"
        for line in lines
    )


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else format(value, form)


def _first_of_each(path: Path) -> dict[str, str]:
    """The `name : value` lines of a file below /proc; where a name stands more than once, the first."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


if __name__ == "__main__":
    print(json.dumps(machine()))
