"""What an exchange costs, as three numbers: time = latency + bytes / bandwidth + bytes / apply rate.

Fitted in two steps, since the time at the server is measured by itself: a line to that, and one to what is left. What
either takes for no bytes at all is latency. The coefficients are not negative, and least squares are of the errors
relative to the whole exchange: the sizes span five orders of magnitude, and an error of a tenth counts the same at
each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CostModel", "fit"]


@dataclass(frozen=True, slots=True)
class CostModel:
    """latency in seconds; seconds_per_byte on the wire, both ways together; apply_per_byte at the server."""

    latency: float
    seconds_per_byte: float
    apply_per_byte: float

    def seconds(self, tensor_bytes: float) -> float:
        """What an exchange takes that moves so many bytes in all, pushed and pulled."""
        return self.latency + tensor_bytes * (self.seconds_per_byte + self.apply_per_byte)

    @property
    def bandwidth(self) -> float | None:
        """Bytes a second on the wire; None where it costs nothing measurable."""
        return 1.0 / self.seconds_per_byte if self.seconds_per_byte else None


def fit(tensor_bytes: Sequence[float], totals: Sequence[float], applies: Sequence[float]) -> CostModel | None:
    """The model of exchanges of different sizes; None for fewer than two.

    totals, applies  seconds of each exchange, and of that at the server; 0.0 where nothing is applied
    """
    if len(tensor_bytes) < 2:
        return None
    sizes, whole, at_server = (np.asarray(column, np.float64) for column in (tensor_bytes, totals, applies))
    moving, per_byte = _line(sizes, whole - at_server, whole)
    applying, apply_per_byte = _line(sizes, at_server, whole)
    return CostModel(moving + applying, per_byte, apply_per_byte)


def _line(x: np.ndarray, y: np.ndarray, scale: np.ndarray) -> tuple[float, float]:
    """a, b >= 0 with the least sum of ((a + b x - y) / scale)^2."""
    columns = np.stack([1.0 / scale, x / scale], axis=1)
    target = y / scale
    (a, b), *_ = np.linalg.lstsq(columns, target, rcond=None)
    if a >= 0.0 and b >= 0.0:
        return float(a), float(b)
    # With one of the two at zero: whichever leaves less.
    alone = np.maximum(0.0, columns.T @ target / (columns**2).sum(axis=0))
    errors = ((columns * alone - target[:, None]) ** 2).sum(axis=0)
    return (float(alone[0]), 0.0) if errors[0] < errors[1] else (0.0, float(alone[1]))
