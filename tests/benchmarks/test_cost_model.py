"""The cost model against exact lines and against SciPy's non-negative least squares."""

import numpy as np
import pytest
from exchange.cost_model import CostModel, fit
from scipy.optimize import nnls

BYTES = [8e3, 8e4, 8e5, 5.2e6, 4e7, 4e8]


def test_exact_costs_are_found_again() -> None:
    true = CostModel(3e-4, 1 / 2e9, 1 / 9e9)
    applies = [size * true.apply_per_byte for size in BYTES]

    found = fit(BYTES, [true.seconds(size) for size in BYTES], applies)

    assert found is not None
    assert found.latency == pytest.approx(3e-4)
    assert found.bandwidth == pytest.approx(2e9)
    assert found.apply_per_byte == pytest.approx(1 / 9e9)


def test_what_an_empty_push_costs_at_the_server_is_latency() -> None:
    applies = [4e-5 + size / 9e9 for size in BYTES]
    totals = [1e-4 + size / 2e9 + apply for size, apply in zip(BYTES, applies, strict=True)]

    found = fit(BYTES, totals, applies)

    assert found is not None
    assert found.latency == pytest.approx(1.4e-4)


@pytest.mark.parametrize("seed", range(20))
def test_coefficients_are_those_of_non_negative_least_squares_of_relative_errors(seed: int) -> None:
    draw = np.random.default_rng(seed)
    sizes, totals = np.array(BYTES), 10.0 ** draw.uniform(-5, 0, len(BYTES))
    columns = np.stack([np.ones_like(sizes), sizes], axis=1) / totals[:, None]
    scale = np.array([1.0, 1e-9])

    expected, _ = nnls(columns * scale, np.ones_like(sizes))

    found = fit(BYTES, totals.tolist(), [0.0] * len(BYTES))
    assert found is not None
    assert [found.latency, found.seconds_per_byte] == pytest.approx(list(expected * scale), rel=1e-6)
    assert found.apply_per_byte == 0.0


def test_one_size_makes_no_line() -> None:
    assert fit([8e3], [1e-4], [0.0]) is None
