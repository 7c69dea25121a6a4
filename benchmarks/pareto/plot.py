"""The figure of frontier.py: nats against bytes, a panel for each number of workers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pareto.labels import Box, places
from pareto.outcome import LIMITS

__all__ = ["draw"]

# Colour-blind safe (Okabe and Ito 2008).
_OURS, _PEER, _LINE = "#0072B2", "#D55E00", "#999999"
# Nats of the axis that are drawn to scale; beyond them it goes by the logarithm.
_LINEAR = 0.3
_TICKS = (-30, -10, -3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3, 10)
# What loses more nats than this has not trained: it is named, not drawn.
_MOST_LOST = 30.0
_DOTS = 110
_MARK_DOTS, _GAP_DOTS = 14.0, 6.0


class _Point(NamedTuple):
    name: str
    bytes: float
    nats: float
    below: float
    above: float
    is_peer: bool

    @property
    def colour(self) -> str:
        return _PEER if self.is_peer else _OURS


def draw(found: Mapping[int, Mapping[str, Mapping[str, Any]]], path: Path, title: str) -> None:
    """Write a PNG. Raises ImportError without matplotlib.

    found  by number of workers what `outcome.rows` makes
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = max(1, len(found))
    figure = Figure(figsize=(8.5 * count, 6.5), dpi=_DOTS, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    drawn = []
    for axes, (workers, rows) in zip(figure.subplots(1, count, squeeze=False)[0], found.items(), strict=False):
        points = sorted(_points(rows), key=lambda point: point.bytes)
        _panel(axes, points)
        lost = [f"{name} ({row['to_dense']:+,.0f})" for name, row in rows.items() if _is_lost(row)]
        axes.set_title(f"{workers} workers" + (f"; not drawn: {', '.join(lost)}" if lost else ""))
        drawn.append((axes, points))
    # Where marks are is known once the figure has been laid out.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, points in drawn:
        _label(axes, points)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _points(rows: Mapping[str, Mapping[str, Any]]) -> list[_Point]:
    return [
        # Around the mean difference the spread of the method's own seeds.
        _Point(
            name,
            row["bytes_per_example"],
            row["to_dense"],
            row["mean"] - row["least"],
            row["most"] - row["mean"],
            row["peer"],
        )
        for name, row in rows.items()
        if row["bytes_per_example"] is not None and row["to_dense"] is not None and not _is_lost(row)
    ]


def _is_lost(row: Mapping[str, Any]) -> bool:
    return row["to_dense"] is not None and row["to_dense"] < -_MOST_LOST


def _panel(axes: Any, points: Sequence[_Point]) -> None:
    for height in (0.0, *(-limit for limit in LIMITS)):
        axes.axhline(height, color=_LINE, linewidth=0.8, linestyle="--" if height else "-")
    for is_peer, mark, title in ((False, "o", "ours"), (True, "s", "PyTorch DDP on gloo")):
        own = [point for point in points if point.is_peer is is_peer]
        axes.errorbar(
            [point.bytes for point in own],
            [point.nats for point in own],
            [[point.below for point in own], [point.above for point in own]],
            color=_PEER if is_peer else _OURS,
            marker=mark,
            linestyle="",
            capsize=2,
            label=title,
        )
    heights = [point.nats for point in points]
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=_LINEAR)
    axes.set_ylim(2 * min(-_LINEAR, *heights, 0.0), 2 * max(_LINEAR, *heights, 0.0))
    low, high = axes.get_ylim()
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in ticks])
    axes.margins(x=0.12)
    axes.set_xlabel("bytes an example, both directions together")
    axes.set_ylabel("test ELBO, nats from dense; bars: least to most of the seeds")
    axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0.0, -0.08), ncols=2, frameon=False)


def _label(axes: Any, points: Sequence[_Point]) -> None:
    """A label for each mark, with a line to it."""
    extent = axes.get_window_extent()
    inside = Box((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2, extent.width, extent.height)
    spots = [axes.transData.transform((point.bytes, point.nats)) for point in points]
    marks = [_mark(axes, point) for point in points]
    labels = [
        axes.annotate(
            point.name,
            (point.bytes, point.nats),
            (0.0, 0.0),
            textcoords="offset points",
            fontsize=8,
            color=point.colour,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            arrowprops={"arrowstyle": "-", "color": point.colour, "alpha": 0.5, "linewidth": 0.6, "shrinkB": 4},
        )
        for point in points
    ]
    # Over its mark a label has no line yet: its extent is that of its words.
    extents = [label.get_window_extent() for label in labels]
    sizes = [(extent.width + _GAP_DOTS, extent.height + _GAP_DOTS) for extent in extents]
    for label, (x, y), box in zip(labels, spots, places(marks, sizes, inside), strict=True):
        label.set_position(((box.x - x) * 72 / _DOTS, (box.y - y) * 72 / _DOTS))


def _mark(axes: Any, point: _Point) -> Box:
    """A mark with its bar."""
    ends = [(point.bytes, point.nats + nats) for nats in (-point.below, point.above)]
    (x, low), (_, high) = axes.transData.transform(ends)
    return Box(x, (low + high) / 2, _MARK_DOTS, max(_MARK_DOTS, high - low))
