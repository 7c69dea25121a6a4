"""The float32 elementary functions, compiled into kernels that may reassociate, against NumPy's in float64."""

import numpy as np
import pytest

from ps_vae.jit import kernel
from ps_vae.nn import elementary


@kernel
def _exp(x, y):
    for i in range(x.size):
        y[i] = elementary.exp(x[i])


@kernel
def _expm1(x, y):
    for i in range(x.size):
        y[i] = elementary.expm1(x[i])


@kernel
def _log(x, y):
    for i in range(x.size):
        y[i] = elementary.log(x[i])


@kernel
def _sigmoid(x, y):
    for i in range(x.size):
        y[i] = elementary.sigmoid(x[i])


@kernel
def _softplus(x, y):
    for i in range(x.size):
        y[i] = elementary.softplus(x[i])


@kernel
def _tanh(x, y):
    for i in range(x.size):
        y[i] = elementary.tanh(x[i])


@kernel
def _sin_cos_pi(x, sine, cosine):
    for i in range(x.size):
        sine[i], cosine[i] = elementary.sin_cos_pi(x[i])


# what each kernel computes, by NumPy in float64; and the accuracy that its docstring states, in ulp
REFERENCES = {
    "exp": (_exp, np.exp, 1),
    "expm1": (_expm1, np.expm1, 2),
    "log": (_log, np.log, 2),
    "sigmoid": (_sigmoid, lambda x: np.exp(-np.logaddexp(0, -x)), 3),
    "softplus": (_softplus, lambda x: np.logaddexp(0, x), 3),
    "tanh": (_tanh, np.tanh, 3),
}


def _numbers() -> np.ndarray:
    """float32 of every size from 1e-30 to 87, of both signs, and densely around where the functions bend."""
    small = np.geomspace(1e-30, 87, 200_001)
    dense = np.linspace(0.001, 30, 200_001)
    return np.concatenate([small, -small, dense, -dense]).astype(np.float32)


@pytest.mark.parametrize("name", REFERENCES)
def test_float32_error_is_within_the_stated_ulp(name: str) -> None:
    function, reference, ulp = REFERENCES[name]
    x = np.abs(_numbers()) if name == "log" else _numbers()
    y = np.empty_like(x)
    function(x, y)
    exact = reference(x.astype(np.float64))
    error = np.abs(y - exact) / np.spacing(np.abs(exact).astype(np.float32))
    worst = error.argmax()
    assert error[worst] <= ulp, f"{name}({x[worst]!r}) = {y[worst]!r}, exactly {exact[worst]!r}"


@pytest.mark.parametrize(
    ("name", "at_infinity", "at_minus_infinity"),
    [("exp", np.inf, 0), ("expm1", np.inf, -1), ("sigmoid", 1, 0), ("softplus", np.inf, 0), ("tanh", 1, -1)],
)
def test_infinities_have_their_limits_and_nan_stays_nan(
    name: str, at_infinity: float, at_minus_infinity: float
) -> None:
    x = np.array([np.inf, -np.inf, 1e30, -1e30, np.nan], np.float32)
    y = np.empty_like(x)
    REFERENCES[name][0](x, y)
    large = 1e30 if name == "softplus" else at_infinity
    np.testing.assert_allclose(y, [at_infinity, at_minus_infinity, large, at_minus_infinity, np.nan], rtol=1e-6)


def test_sine_and_cosine_of_half_turns_are_within_1e7() -> None:
    x = np.linspace(-1, 1, 200_001, dtype=np.float32)
    sine, cosine = np.empty_like(x), np.empty_like(x)
    _sin_cos_pi(x, sine, cosine)
    np.testing.assert_allclose(sine, np.sin(np.pi * x.astype(np.float64)), rtol=0, atol=1e-7)
    np.testing.assert_allclose(cosine, np.cos(np.pi * x.astype(np.float64)), rtol=0, atol=1e-7)
