"""What likelihoods of counts share: the check of the data, log(x!), and how a count is drawn."""

import math

import numpy as np

from ps_vae.jit import kernel
from ps_vae.nn.arrays import Array, Floats
from ps_vae.nn.likelihoods.fault import Fault, first_outside, wrong_value

__all__ = ["HIGHEST", "RAREST", "count_at", "log_factorials", "no_count"]

HIGHEST = 26.0
"""What the logarithm of a rate stays below."""

RAREST = 1e-3
"""Mean of a feature that is never counted, so that its logarithm is finite."""

# Counts up to here are exact in float32.
_MOST = 2.0**24
# What is rarer than that no uniform of float32 falls into.
_LEAST = 1e-12


def no_count(data: Array) -> Fault | None:
    """The first value that is not a whole number from 0 to 2^24."""
    place = first_outside(data, 0, _MOST)
    if place is None and (fractions := np.argwhere(data != np.floor(data))).size:
        place = int(fractions[0][0]), int(fractions[0][1])
    if place is None:
        return None
    value = data[place]
    if value != value:
        hint = "mend the data"
    elif value > _MOST:
        hint = f"{_MOST:,.0f} is the largest that float32 holds exactly; count in other units, or take gaussian-feature"
    elif value < 0:
        hint = "gaussian-feature takes numbers of either sign"
    elif 0 <= value <= 1:
        hint = "for values from 0 to 1, such as grey pixels, take bernoulli or continuous-bernoulli"
    else:
        hint = "gaussian-feature takes any number"
    return wrong_value(data, place, f"this likelihood is for counts, whole numbers from 0 up; {hint}")


@kernel
def log_factorials(counts: Floats) -> float:
    """Sum of log(x!), in kernels."""
    total = 0.0
    for j in range(counts.size):
        if counts[j] > 1:
            total += math.lgamma(counts[j] + 1.0)
    return total


@kernel
def count_at(u: float, mode: int, probability: float, slope: float, start: float) -> int:
    """The count into whose share of [0, 1) u falls, the shares being in the order mode, mode + 1, mode - 1, ....

    probability   of the mode
    slope, start  p(k + 1) = p(k) (slope k + start) / (k + 1): Poisson, binomial and negative binomial (Panjer 1981)
    """
    above = below = probability
    high = low = mode
    left = u - probability
    while left >= 0.0 and (above > _LEAST or (low > 0 and below > _LEAST)):
        above *= (slope * high + start) / (high + 1)
        high += 1
        left -= above
        if left < 0.0:
            return high
        if low > 0:
            low -= 1
            below *= (low + 1) / (slope * low + start)
            left -= below
            if left < 0.0:
                return low
    return mode
