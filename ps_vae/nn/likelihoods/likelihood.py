"""What a likelihood has to offer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ps_vae.nn.arrays import Array, Floats, Rows, Sums

__all__ = ["Likelihood", "Sampler", "first_outside"]


class Sampler(Protocol):
    """How samples are drawn: see `Likelihood.sample`."""

    def __call__(self, outputs: Floats, bias: Floats, *, seed: int, step: int, rows: Rows) -> Floats:
        """Draw one x a row."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """A family of distributions of x whose parameters are the decoder's outputs plus a bias.

    outputs is always (rows, parameters * features), the decoder's last product without its bias, float32 or
    float64, C order; its columns are all features of the first parameter, then all of the second, and so on.

    parameters      decoder outputs for each feature
    loss_gradient(outputs, bias, x, log_likelihood, d_bias) -> float
                    outputs become the gradient of -log p(x|z) with respect to them, in place;
                    x (rows, features); log_likelihood (rows,) float64 and d_bias like bias are overwritten;
                    returns the sum of log_likelihood, in nats
    log_likelihood(outputs, bias, x, log_likelihood)
                    only log p(x|z) for each row; x (n, features), row i of outputs belongs to x[i % n];
                    outputs are left as they are
    mean(outputs, bias) -> (rows, features)
                    E[x|z]; may overwrite outputs
    sample(outputs, bias, *, seed, step, rows) -> (rows, features)
                    x drawn from p(x|z) with the noise of stream OBSERVATION; may overwrite outputs
    check_data(data)
                    DataError unless every row of data (rows, features) can be an x
    initial_bias(feature_means) -> (parameters * features,) float64
                    the bias that makes the mean of p(x) that of the data
    """

    name: str
    parameters: int
    loss_gradient: Callable[..., float]
    log_likelihood: Callable[..., None]
    mean: Callable[[Floats, Floats], Floats]
    sample: Sampler
    check_data: Callable[[Array], None]
    initial_bias: Callable[[Sums], Sums]


def first_outside(data: Array, low: float, high: float) -> tuple[int, int] | None:
    """Row and column of the first element that is not a number in [low, high], or None."""
    if data.size == 0 or (data.min() >= low and data.max() <= high):
        return None
    row, column = np.argwhere(~((data >= low) & (data <= high)))[0]
    return int(row), int(column)
