"""The tables of frontier.py, as Markdown, and its answers in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from report import table

from pareto.methods import DENSE
from pareto.outcome import SLOW, UNSHAPED

__all__ = ["told", "whole_table"]

# The epochs need not be a whole number of exchanges.
_AS_MANY = 0.002
_TITLES = {UNSHAPED: "examples/s", "1gbit": "1 Gbit/s", SLOW: "100 Mbit/s"}


def whole_table(found: Mapping[str, Mapping[str, Any]], rates: Sequence[str]) -> str:
    """A line for each method; below it which one has seen more or fewer examples, and why one has no figure."""
    lines = []
    for name, row in found.items():
        spread = f"{_nats(row['least'])} to {_nats(row['most'])}" if row["mean"] is not None else None
        lines.append(
            {
                "method": name,
                "options": row["options"] or ("(DDP)" if row["peer"] else "(none)"),
                "bytes/example": row["bytes_per_example"],
                "times fewer": row["of_dense"],
                "test ELBO": row["mean"] if row["mean"] is None else _nats(row["mean"]),
                "least to most": spread,
                "to dense": row["to_dense"],
                **{title(rate): (row["pace"][rate] or {}).get("median") for rate in rates},
            }
        )
    columns = {"method": "", "options": "", "bytes/example": ",.1f", "times fewer": ",.1f", "test ELBO": ">"}
    columns |= {"least to most": "", "to dense": "+.2f", **dict.fromkeys(map(title, rates), ",.0f")}
    dense = found.get(DENSE, {}).get("examples")
    beyond = [
        f"{name} {row['examples'] / dense:.3f}"
        for name, row in found.items()
        if dense and row["examples"] and abs(row["examples"] / dense - 1.0) > _AS_MANY
    ]
    notes = [f"\nNot as many examples as dense, but so many times: {', '.join(beyond)}"] if beyond else []
    reasons = [f"\nNo figure for {name}: {row['why']}" for name, row in found.items() if row["why"]]
    return "\n".join([table(lines, columns), *notes, *reasons])


def told(said: Mapping[str, Any], workers: int) -> str:
    """What `answers` found, a sentence each."""
    lines = []
    for limit, best in said["within"].items():
        if best is None:
            lines.append(f"{workers} workers: nothing within {limit} nat of dense was measured.")
            continue
        lines.append(
            f"{workers} workers: the fewest bytes within {limit} nat of dense are those of {best['method']}, "
            f"{best['of_dense']:,.0f} times fewer ({best['to_dense']:+.2f} nat, worst seed {best['worst']:+.2f})."
        )
    slow = said["slow"]
    if slow is not None:
        lines.append(
            f"{workers} workers at 100 Mbit/s: {slow['method']} ({slow['to_dense']:+.2f} nat) makes "
            f"{slow['examples_per_second']:,.0f} examples/s, {_times(slow['of_own_unshaped'])} its own unshaped "
            f"figure, {_times(slow['of_dense_unshaped'])} that of dense, {_times(slow['of_ddp'])} DDP's on that link."
        )
    return "\n".join(lines)


def title(rate: str) -> str:
    """A rate's column."""
    return _TITLES.get(rate, rate)


def _nats(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _times(value: float | None) -> str:
    return "? times" if value is None else f"{value:.2f} times"
