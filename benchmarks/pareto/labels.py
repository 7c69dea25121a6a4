"""Where labels of marks may stand, so that no label covers a mark or another label."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

__all__ = ["Box", "places"]

_DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
_STEPS = 14


class Box(NamedTuple):
    """A rectangle: its middle, its width and height."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: "Box") -> bool:
        return (
            abs(self.x - other.x) < (self.width + other.width) / 2
            and abs(self.y - other.y) < (self.height + other.height) / 2
        )

    def is_inside(self, other: "Box") -> bool:
        return (
            abs(self.x - other.x) <= (other.width - self.width) / 2
            and abs(self.y - other.y) <= (other.height - self.height) / 2
        )


def places(marks: Sequence[Box], sizes: Sequence[tuple[float, float]], inside: Box) -> list[Box]:
    """A box for each mark's label, of the size given; near its mark, and the first ones choose first.

    marks   what no label may cover
    inside  what no label may leave

    A label that finds no free place stands over its mark, whatever it covers.
    """
    taken = list(marks)
    found = []
    for mark, size in zip(marks, sizes, strict=True):
        around = _around(mark, size)
        free = (box for box in around if box.is_inside(inside) and not any(box.overlaps(other) for other in taken))
        box = next(free, around[0])
        taken.append(box)
        found.append(box)
    return found


def _around(mark: Box, size: tuple[float, float]) -> list[Box]:
    """Boxes beside a mark, then farther and farther away."""
    width, height = size
    right, up = (mark.width + width) / 2, (mark.height + height) / 2
    # Half a label higher each time, and as far to the side.
    return [
        Box(mark.x + x * (right + step * height), mark.y + y * (up + step * height / 2), width, height)
        for step, (x, y) in product(range(_STEPS), _DIRECTIONS)
    ]
