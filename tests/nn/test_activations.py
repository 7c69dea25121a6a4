"""Activations with their bias, against NumPy's formulas and central differences."""

import numpy as np
import pytest

from ps_vae.nn.activations import ACTIVATIONS

FORMULAS = {
    "identity": lambda a: a,
    "relu": lambda a: np.maximum(a, 0),
    "sigmoid": lambda a: np.exp(-np.logaddexp(0, -a)),
    "softplus": lambda a: np.logaddexp(0, a),
    "tanh": np.tanh,
}


def _draw(dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    a, d = 3 * generator.normal(size=(2, 7, 37))
    return a.astype(dtype), generator.normal(size=37).astype(dtype), d.astype(dtype)


def test_the_table_is_complete() -> None:
    assert ACTIVATIONS.keys() == FORMULAS.keys()


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("name", FORMULAS)
def test_forward_is_the_formula(name: str, dtype: type, rtol: float) -> None:
    a, bias, _ = _draw(dtype)
    expected = FORMULAS[name]((a + bias).astype(np.float64))
    ACTIVATIONS[name].forward(a, bias)
    np.testing.assert_allclose(a, expected, rtol=rtol)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-8)])
@pytest.mark.parametrize("name", FORMULAS)
def test_backward_matches_central_differences(name: str, dtype: type, tolerance: float) -> None:
    a, bias, d = _draw(dtype)
    total, step = (a + bias).astype(np.float64), 1e-6
    slope = (FORMULAS[name](total + step) - FORMULAS[name](total - step)) / (2 * step)
    expected = d * slope
    outputs, d_bias = a.copy(), np.full_like(bias, np.nan)
    ACTIVATIONS[name].forward(outputs, bias)
    ACTIVATIONS[name].backward(d, outputs, d_bias)
    np.testing.assert_allclose(d, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(d_bias, expected.sum(axis=0), rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("name", FORMULAS)
def test_nan_is_not_hidden(name: str) -> None:
    a, bias, d = _draw(np.float32)
    a[2, 5] = np.nan
    d_bias = np.empty_like(bias)
    ACTIVATIONS[name].forward(a, bias)
    assert np.isnan(a[2, 5])
    d[2, 5] = np.nan
    ACTIVATIONS[name].backward(d, a, d_bias)
    assert np.isnan(d[2, 5])
    assert np.isnan(d_bias[5])
    assert np.isfinite(d_bias[6])
