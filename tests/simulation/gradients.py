"""Gradients in whose sums every mistake shows, and one loop that says what must come out of a run."""

import functools
from collections.abc import Callable

import numpy as np

Gradient = Callable[[np.ndarray, int, int], np.ndarray]


@functools.lru_cache(maxsize=4096)
def _noise(size, step, index):
    return np.random.default_rng([step, index]).standard_normal(size).astype(np.float32)


def chaotic_gradient(weights, step, index):
    """Depends on the weights, the step and the microbatch."""
    return np.sin(np.float32(3.7) * weights) + _noise(weights.size, step, index)


def unit_gradient(weights, step, index):
    return np.full(weights.size, 1.0, np.float32)


def add_up(weights, parts, state, moment, out):
    """The update rule weights + sum of pushes."""
    np.add(weights, functools.reduce(np.add, parts), out=out)


def small_step(weights, parts, state, moment, out):
    np.subtract(weights, np.float32(0.1) * functools.reduce(np.add, parts), out=out)


def sequential_versions(steps, microbatches, size=96, *, delay=0, first=0, start=None):
    """The run of `chaotic_gradient` and `small_step` in one loop, each step summed by the recursion of the definition.

    delay  versions that the weights are old on which a step is computed, where there are older ones than the `first`

    Returns the weights of every version.
    """

    def tree(weights, step, start, stop):
        if stop - start == 1:
            return chaotic_gradient(weights, step, start)
        middle = start + (1 << (stop - start - 1).bit_length() - 1)
        return tree(weights, step, start, middle) + tree(weights, step, middle, stop)

    versions = {first: np.zeros(size, np.float32) if start is None else start}
    for step in range(first, steps):
        total = tree(versions[max(first, step - delay)], step, 0, microbatches)
        versions[step + 1] = versions[step] - np.float32(0.1) * total
    return versions


def sequential(steps, microbatches, size=96, *, delay=0, first=0, start=None):
    """The weights at the end of that loop."""
    return sequential_versions(steps, microbatches, size, delay=delay, first=first, start=start)[steps]
