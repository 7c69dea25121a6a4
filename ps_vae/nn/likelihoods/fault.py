"""What of the data a likelihood cannot take, and where it is."""

from dataclasses import dataclass

import numpy as np

from ps_vae.nn.arrays import Array

__all__ = ["Fault", "first_outside", "wrong_value"]


@dataclass(frozen=True, slots=True)
class Fault:
    """
    what    is there, with its value
    row     where it is, of the rows that were looked at
    why     it cannot be, and what to do
    column  None where it is in several, or `what` names it
    """

    what: str
    row: int
    why: str
    column: int | None = None

    def text(self, row: str = "") -> str:
        """The sentence for an error; row: what the reader knows the row by, where that is another number."""
        place = row or f"row {self.row}"
        if self.column is not None:
            place += f", column {self.column}"
        return f"{self.what} in {place}: {self.why}"


def wrong_value(data: Array, place: tuple[int, int], why: str) -> Fault:
    """That of a single value."""
    row, column = place
    return Fault(f"value {data[place]!s}", row, why, column)


def first_outside(data: Array, low: float, high: float) -> tuple[int, int] | None:
    """Row and column of the first element that is not a number in [low, high], or None."""
    if data.size == 0 or (data.min() >= low and data.max() <= high):
        return None
    row, column = np.argwhere(~((data >= low) & (data <= high)))[0]
    return int(row), int(column)
