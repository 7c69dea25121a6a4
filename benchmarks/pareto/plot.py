"""The figure of frontier.py: nats against bytes, a panel for each number of workers."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pareto.outcome import LIMITS

__all__ = ["draw", "figure_of"]

# Colour-blind safe (Okabe and Ito 2008).
_OURS, _PEER, _LINE = "#0072B2", "#D55E00", "#999999"
# Where a label may stand, in points from its mark: near before far, above and below before far out.
_DISTANCES = (9, 18, 27, 36, 48, 60, 75, 90, 110)
_DIRECTIONS = ((0, 1), (0, -1), (1, 0.6), (-1, 0.6), (1, -0.6), (-1, -0.6), (1.6, 0), (-1.6, 0))
# Nats of the axis that are drawn to scale; what is lost beyond them goes by its logarithm.
_LINEAR = 0.3


def draw(found: Mapping[int, Mapping[str, Mapping[str, Any]]], path: Path, title: str) -> None:
    """Write a PNG. Raises ImportError without matplotlib."""
    figure, _ = figure_of(found, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def figure_of(found: Mapping[int, Mapping[str, Mapping[str, Any]]], title: str) -> tuple[Any, dict[int, list[Any]]]:
    """The figure, and the labels of each panel.

    found  by number of workers what `outcome.rows` makes
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5 * max(1, len(found)), 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = figure.subplots(1, max(1, len(found)), squeeze=False)[0]
    marks = [
        (axes, workers, _panel(axes, workers, rows))
        for axes, (workers, rows) in zip(panels, found.items(), strict=False)
    ]
    # Where things are is known once the figure has been laid out.
    figure.draw_without_rendering()
    return figure, {workers: _labelled(axes, points) for axes, workers, points in marks}


def _panel(axes: Any, workers: int, rows: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, float, float, str]]:
    points = []
    for name, row in rows.items():
        if row["bytes_per_example"] is None or row["to_dense"] is None:
            continue
        colour, mark = (_PEER, "s") if row["peer"] else (_OURS, "o")
        # Around the mean difference the spread of the method's own seeds.
        around = [[row["mean"] - row["least"]], [row["most"] - row["mean"]]]
        axes.errorbar(
            row["bytes_per_example"], row["to_dense"], around, color=colour, marker=mark, capsize=2, linewidth=1
        )
        points.append((name, row["bytes_per_example"], row["to_dense"], colour))
    for limit in (0.0, *LIMITS):
        axes.axhline(-limit, color=_LINE, linewidth=0.8, linestyle="--" if limit else "-")
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=_LINEAR)
    ticks = [tick for tick in (-30, -10, -3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1) if _is_near(tick, points)]
    axes.set_yticks(ticks, [f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in ticks])
    axes.margins(x=0.15, y=0.2)
    axes.set_xlabel("bytes an example, both directions together")
    axes.set_ylabel("test ELBO, nats from dense; bars: least to most of the seeds")
    axes.set_title(f"{workers} workers (squares: PyTorch DDP)")
    return points


def _is_near(tick: float, points: Sequence[tuple[str, float, float, str]]) -> bool:
    heights = [height for _, _, height, _ in points]
    return abs(tick) <= _LINEAR or min(heights, default=0.0) * 2 <= tick <= max(heights, default=0.0) * 2


def _labelled(axes: Any, points: Sequence[tuple[str, float, float, str]]) -> list[Any]:
    """A label beside each mark, in the first place that is free of marks and of other labels, and inside the panel."""
    from matplotlib.transforms import Bbox

    limits = axes.get_xlim(), axes.get_ylim()
    inside = axes.get_window_extent()
    spots = [axes.transData.transform((x, y)) for _, x, y, _ in points]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in spots]
    labels = []
    for name, x, y, colour in sorted(points, key=lambda point: point[1]):
        label = axes.annotate(
            name,
            (x, y),
            (0, 0),
            textcoords="offset points",
            fontsize=8,
            color=colour,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "color": _LINE, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
        )
        for distance, (right, up) in product(_DISTANCES, _DIRECTIONS):
            half = len(name) * 2.2 if right else 0.0
            label.set_position((right * distance + (half if right > 0 else -half), up * distance))
            # Of its words alone: the line to the mark may pass over others.
            box = type(label).__mro__[1].get_window_extent(label)
            is_inside = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if is_inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
        labels.append(label)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    return labels
