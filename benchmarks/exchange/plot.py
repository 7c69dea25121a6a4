"""The figure of communication.py: round trips against the number of parameters, and where their time goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exchange.breakdown import PARTS

__all__ = ["draw"]

# Colour-blind safe (Okabe and Ito 2008); of the parts those that move bytes are blue.
_LINES = {
    "memory copy": ("#999999", ":"),
    "pyzmq": ("#000000", "-"),
    "pyzmq, ipc": ("#000000", ":"),
    "gloo all-reduce": ("#CC79A7", "-"),
    "ours, shared memory": ("#D55E00", "-"),
    "ours, shared memory, Adam": ("#D55E00", "--"),
    "ours, tcp": ("#0072B2", "-"),
    "ours, tcp, Adam": ("#0072B2", "--"),
    "ours": ("#0072B2", "-"),
    "ours, Adam": ("#0072B2", "--"),
}
_COLOURS = {
    "compute": "#BBBBBB",
    "encode": "#56B4E9",
    "wire": "#0072B2",
    "wait": "#F0E442",
    "apply": "#009E73",
}


def draw(
    found: Mapping[int, Mapping[str, Mapping[str, Any]]], grid: Sequence[Mapping[str, Any]], path: Path, title: str
) -> None:
    """Write a PNG. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(19, 6.5), width_ratios=(1.15, 1.0, 1.15))
    _round_trips(left, found)
    _shares(middle, found)
    _steps(right, grid)
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _round_trips(axes: Any, found: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> None:
    names = dict.fromkeys(name for systems in found.values() for name in systems)
    for name in names:
        points = [(size, systems[name]["seconds"]) for size, systems in found.items() if name in systems]
        known = [(size, seconds) for size, seconds in points if seconds]
        if not known:
            continue
        colour, style = _LINES.get(name, ("#E69F00", "-"))
        sizes = [size for size, _ in known]
        middle = [1e3 * seconds["median"] for _, seconds in known]
        axes.plot(sizes, middle, style, color=colour, marker="o", markersize=4, label=name)
        spread = [[1e3 * seconds[end] for _, seconds in known] for end in ("least", "most")]
        axes.fill_between(sizes, *spread, color=colour, alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("parameters (float32)")
    axes.set_ylabel("push and pull, ms: median of the rounds, least to most")
    axes.set_title("Round trip, one worker and one server")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize=9, loc="upper left")


def _shares(axes: Any, found: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> None:
    bars = []
    for name in dict.fromkeys(name for systems in found.values() for name in systems):
        for size, systems in found.items():
            parts = systems.get(name, {}).get("parts")
            if parts and not name.endswith("Adam"):
                bars.append((f"{name.removeprefix('ours, ')}, {size:,}", parts))
    _bars(axes, bars, is_share=True)
    axes.set_xlabel("share of the exchange; at the right its milliseconds")
    axes.set_title("Where an exchange's time goes, by size")


def _steps(axes: Any, grid: Sequence[Mapping[str, Any]]) -> None:
    names = {"auto": "memory" if any(row.get("shared") for row in grid) else "tcp", "tcp": "tcp"}
    bars = [
        (f"{names[row['transport']]}, {row['workers']} x {row['shards']}", row["parts"]) for row in grid if row["parts"]
    ]
    _bars(axes, bars, is_share=False)
    axes.set_xlabel("ms of a step")
    size = f"{grid[0]['size']:,} parameters" if grid else "none measured"
    axes.set_title(f"Workers x shards, {size}")


def _bars(axes: Any, bars: Sequence[tuple[str, Mapping[str, float]]], *, is_share: bool) -> None:
    totals = [sum(parts.values()) for _, parts in bars]
    scales = [1.0 / total if is_share else 1e3 for total in totals]
    left = [0.0] * len(bars)
    for part in PARTS:
        widths = [scale * parts[part] for (_, parts), scale in zip(bars, scales, strict=True)]
        if any(width > 0.0 for width in widths):
            axes.barh(range(len(bars)), widths, left=left, color=_COLOURS[part], label=part, height=0.75)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, total in enumerate(totals):
        axes.text(left[place], place, f" {1e3 * total:,.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.15 * max(left, default=1.0))
    if not bars:
        return
    axes.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, -0.22), ncols=len(PARTS))
