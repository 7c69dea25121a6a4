"""Pictures from arrays: grids of images and the loss curve, as PNG files.

Every pixel of an image becomes a square of whole screen pixels, so nothing is blurred, and a file's size follows from
what is drawn.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ps_vae.data.whole import whole
from ps_vae.errors import UsageError

__all__ = ["draw_grid", "draw_loss", "draw_reconstructions", "draw_samples"]

Floats = npt.NDArray[np.float32]

_DPI = 100
# Screen pixels: side of a small image, between two images, between two bands, around all, for a title, for labels.
_SIDE = 56
_GAP = 4
_BAND_GAP = 12
_MARGIN = 12
_TITLE = 32
_LABELS = 116
_LARGEST = 1 << 16
# Steps at the start of which the curve may leave the picture: they would flatten all the others.
_STEEP_PART = 0.03


def draw_samples(path: Path, images: Floats, shape: tuple[int, int], *, span: tuple[float, float], title: str) -> None:
    """A grid of images.

    images  (count, height * width)
    shape   (height, width)
    span    the values that are drawn black and white

    Raises UsageError where it gets too large.
    """
    bands = [[row] for row in _rows(images, shape)]
    _draw_bands(path, bands, labels=[""], span=span, title=title)


def draw_reconstructions(
    path: Path, originals: Floats, means: Floats, shape: tuple[int, int], *, span: tuple[float, float], title: str
) -> None:
    """Originals, each above its reconstruction; two arrays (count, height * width), the rest as in `draw_samples`."""
    bands = [list(pair) for pair in zip(_rows(originals, shape), _rows(means, shape), strict=True)]
    _draw_bands(path, bands, labels=["original", "reconstruction"], span=span, title=title)


def draw_grid(
    path: Path,
    images: Floats,
    shape: tuple[int, int],
    *,
    labels: list[str],
    span: tuple[float, float],
    title: str,
) -> None:
    """Rows of images, each with its label; images (rows, columns, height * width), the rest as in `draw_samples`."""
    rows = list(images.reshape(len(images), -1, *shape))
    _draw_bands(path, [rows], labels=labels, span=span, title=title)


def draw_loss(path: Path, lines: Sequence[dict[str, Any]], *, title: str) -> None:
    """The ELBO of training and validation over steps, 800 x 500 pixels. lines: those of metrics.jsonl"""
    figure = Figure((8, 5), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for kind, style in (("training", "-"), ("validation", "o-")):
        points = [(line["version"], line["elbo"]) for line in lines if line["kind"] == kind and "elbo" in line]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                style,
                markersize=4,
                linewidth=1.2,
                label=f"{kind}, last {points[-1][1]:.2f}",
            )
    bounds = _readable([(line["version"], line["elbo"]) for line in lines if "elbo" in line])
    if bounds is not None:
        axes.set_ylim(*bounds)
        axes.legend(loc="lower right")
    axes.set(xlabel="step", ylabel="ELBO (nats per example)", title=title)
    axes.grid(alpha=0.3)
    _save(figure, path)


def _rows(images: Floats, shape: tuple[int, int]) -> list[Floats]:
    """The images in rows, as (columns, height, width); the last row may be shorter."""
    columns = max(10, math.ceil(math.sqrt(len(images))))
    squares = images.reshape(-1, *shape)
    return [squares[start : start + columns] for start in range(0, len(squares), columns)]


def _draw_bands(
    path: Path, bands: list[list[Floats]], *, labels: list[str], span: tuple[float, float], title: str
) -> None:
    """Bands of rows of images below one another; the rows of each band are labelled."""
    _, height, width = bands[0][0].shape
    scale = max(1, _SIDE // max(height, width))
    left = _LABELS if any(labels) else _MARGIN
    row_height, column_width = scale * height + _GAP, scale * width + _GAP
    band_height = len(labels) * row_height + (_BAND_GAP if len(labels) > 1 else 0)
    # A title needs some room even above a single image.
    size = (max(360, left + len(bands[0][0]) * column_width + _MARGIN), _TITLE + len(bands) * band_height + _MARGIN)
    if max(size) >= _LARGEST:
        raise UsageError(
            f"{size[0]:,} x {size[1]:,} pixels are too many for a picture; ask for fewer images, or for FILE.npy"
        )
    canvas = np.full((size[1], size[0]), np.nan, np.float32)
    figure = Figure((size[0] / _DPI, size[1] / _DPI), dpi=_DPI)
    for band, rows in enumerate(bands):
        for row, (images, label) in enumerate(zip(rows, labels, strict=True)):
            top = _TITLE + band * band_height + row * row_height
            for column, image in enumerate(images):
                start = left + column * column_width
                canvas[top : top + scale * height, start : start + scale * width] = np.kron(
                    image, np.ones((scale, scale))
                )
            middle = 1 - (top + scale * height / 2) / size[1]
            figure.text((left - 8) / size[0], middle, label, ha="right", va="center", fontsize=9)
    # What is no image stays NaN, which is drawn as paper.
    figure.figimage(canvas, cmap="gray", vmin=span[0], vmax=span[1], origin="upper")
    figure.text(left / size[0], 1 - _TITLE / 2 / size[1], title, ha="left", va="center", fontsize=10)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with whole(path) as partial:
        figure.savefig(partial, format="png")


def _readable(points: list[tuple[int, float]]) -> tuple[float, float] | None:
    """Bounds of the vertical axis that show what comes after the steep start."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if not finite:
        return None
    start = _STEEP_PART * max(step for step, _ in finite)
    values = [value for step, value in finite if step >= start]
    margin = 0.05 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin
