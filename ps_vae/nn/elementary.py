"""Elementary functions of one number, for use inside kernels: exp, expm1, log, sigmoid, softplus, tanh, ....

A loop around libm's exp is a loop of calls. In float32 the functions below are short polynomials without a
branch, so the loop around them becomes vector instructions; in float64, which only checks, they are libm's.

    exp, expm1   x = n ln2 + r, |r| <= ln2/2;  expm1(r) = r + r^2 q(r);  exp(x) = 2^n (1 + expm1(r))
    log          x = 2^n m, m in [2/3, 4/3);  log(m) = 2 artanh(s), s = (m-1)/(m+1);  artanh(s) = s + s^3 R(s^2)
    sin, cos pi  x = n/2 + r, |r| <= 1/4;  odd and even polynomial in r, exchanged and signed by n mod 4

The coefficients are minimax fits made for this file. The stated accuracies are in units in the last place (ulp)
of the exact value. NaN gives NaN. n is rounded by adding and subtracting 1.5 * 2^23, whose low bits then hold n:
that needs arithmetic as it is written, so it is demanded here whatever the kernel around it allows
(Numba lets a function inherit the fast-math flags of its caller unless it sets its own).

Called from Python the functions are NumPy's, on numbers and arrays.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

__all__ = ["exp", "expm1", "implement", "log", "sigmoid", "sin_cos_pi", "softplus", "tanh"]


def exp(x: Any) -> Any:
    """e^x. float32: 1 ulp for |x| <= 87.3; 0 below and infinity above 88.37."""
    return np.exp(x)


def expm1(x: Any) -> Any:
    """e^x - 1 without cancellation. float32: 2 ulp; infinity above 88.37."""
    return np.expm1(x)


def log(x: Any) -> Any:
    """Natural logarithm. float32: 2 ulp for normal, finite, positive x; anything else is not provided for."""
    return np.log(x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x). float32: 3 ulp for x >= -87; 0 below."""
    return 1 / (1 + np.exp(-x))


def softplus(x: Any) -> Any:
    """log(1 + e^x). float32: 3 ulp for x >= -87; 0 below."""
    return np.logaddexp(0, x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent. float32: 3 ulp."""
    return np.tanh(x)


def sin_cos_pi(x: Any) -> Any:
    """sin(pi x) and cos(pi x) for |x| <= 1. float32: absolute error 1e-7."""
    return np.sin(np.pi * x), np.cos(np.pi * x)


_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_INFINITY = np.float32(np.inf)
_ROUNDER = np.float32(1.5 * 2**23)
_ROUNDER_BITS = np.int32(_ROUNDER.view(np.int32))
_LOG2_E = np.float32(1 / math.log(2))
_LN2_HIGH = np.float32(0.693359375)  # few bits, so that n * high is exact
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
_OVERFLOW = np.float32(88.37)  # above this n would be 128, which no exponent holds
_UNDERFLOW = np.float32(-87.3)
_MINUS_ONE_BELOW = np.float32(-20)
_ONE_BITS = np.int32(0x3F800000)
_TWO_THIRDS_BITS = np.int32(0x3F2AAAAB)
_MANTISSA = np.int32(0x007FFFFF)
_EXPONENT_SHIFT = np.int32(23)
_QUADRANT, _LOW_BIT, _HIGH_BIT = np.int32(3), np.int32(1), np.int32(2)

_Q0, _Q1, _Q2, _Q3, _Q4 = (np.float32(c) for c in (0.50000001, 0.16666544, 0.04166628, 0.00836652, 0.00139463))
_R0, _R1, _R2, _R3 = (np.float32(c) for c in (0.33333207, 0.2001085, 0.13999571, 0.14012229))
_S0, _S1, _S2, _S3 = (np.float32(c) for c in (3.14159264, -5.16770783, 2.5497673, -0.58907866))
_C0, _C1, _C2, _C3, _C4 = (np.float32(c) for c in (1.0, -4.93480216, 4.05870726, -1.33504456, 0.23132972))

_AS_WRITTEN: Any = {"fastmath": False, "error_model": "numpy"}


@register_jitable(**_AS_WRITTEN)
def _split_exponential(x: Any) -> Any:
    """2^n and expm1(r) of x = n ln2 + r, for _UNDERFLOW <= x <= _OVERFLOW."""
    shifted = np.float32(x * _LOG2_E + _ROUNDER)
    n = shifted - _ROUNDER
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    power = np.int32(((shifted.view(np.int32) - _ROUNDER_BITS) << _EXPONENT_SHIFT) + _ONE_BITS).view(np.float32)
    return power, r + (r * r) * (_Q0 + r * (_Q1 + r * (_Q2 + r * (_Q3 + r * _Q4))))


@register_jitable(**_AS_WRITTEN)
def _log_ratio(s: Any) -> Any:
    """log((1 + s) / (1 - s)) = 2 artanh(s) for |s| <= 1/3."""
    z = s * s
    return _TWO * (s + (s * z) * (_R0 + z * (_R1 + z * (_R2 + z * _R3))))


def _exp_single(x: Any) -> Any:
    bounded = _UNDERFLOW if x < _UNDERFLOW else x
    bounded = _OVERFLOW if x > _OVERFLOW else bounded
    power, fraction = _split_exponential(bounded)
    value = power + power * fraction
    value = _ZERO if x < _UNDERFLOW else value
    return _INFINITY if x > _OVERFLOW else value


def _expm1_single(x: Any) -> Any:
    bounded = _MINUS_ONE_BELOW if x < _MINUS_ONE_BELOW else x
    bounded = _OVERFLOW if x > _OVERFLOW else bounded
    power, fraction = _split_exponential(bounded)
    value = power * fraction + (power - _ONE)
    return _INFINITY if x > _OVERFLOW else value


def _log_single(x: Any) -> Any:
    above = np.int32(np.float32(x).view(np.int32) - _TWO_THIRDS_BITS)
    n = np.float32(above >> _EXPONENT_SHIFT)
    m = np.int32((above & _MANTISSA) + _TWO_THIRDS_BITS).view(np.float32)
    return n * _LN2_HIGH + (n * _LN2_LOW + _log_ratio((m - _ONE) / (m + _ONE)))


def _sigmoid_single(x: Any) -> Any:
    e = exp(-abs(x))
    return (e if x < _ZERO else _ONE) / (_ONE + e)


def _softplus_single(x: Any) -> Any:
    e = exp(-abs(x))
    return (_ZERO if x < _ZERO else x) + _log_ratio(e / (_TWO + e))


def _tanh_single(x: Any) -> Any:
    e = expm1(-_TWO * abs(x))
    magnitude = -e / (_TWO + e)
    return -magnitude if x < _ZERO else magnitude


def _sin_cos_pi_single(x: Any) -> Any:
    shifted = np.float32(_TWO * x + _ROUNDER)
    quadrant = shifted.view(np.int32) & _QUADRANT
    r = x - _HALF * (shifted - _ROUNDER)
    z = r * r
    sine = r * (_S0 + z * (_S1 + z * (_S2 + z * _S3)))
    cosine = _C0 + z * (_C1 + z * (_C2 + z * (_C3 + z * _C4)))
    odd = (quadrant & _LOW_BIT) != 0
    first = cosine if odd else sine
    second = sine if odd else cosine
    first = -first if (quadrant & _HIGH_BIT) != 0 else first
    second = -second if ((quadrant + _LOW_BIT) & _HIGH_BIT) != 0 else second
    return first, second


def _exp_double(x: Any) -> Any:
    return math.exp(x)


def _expm1_double(x: Any) -> Any:
    return math.expm1(x)


def _log_double(x: Any) -> Any:
    return math.log(x)


def _sigmoid_double(x: Any) -> Any:
    return 1.0 / (1.0 + math.exp(-x))


def _softplus_double(x: Any) -> Any:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _tanh_double(x: Any) -> Any:
    return math.tanh(x)


def _sin_cos_pi_double(x: Any) -> Any:
    return math.sin(math.pi * x), math.cos(math.pi * x)


def implement(function: Callable[[Any], Any], single: Callable[[Any], Any], double: Callable[[Any], Any]) -> None:
    """Have kernels that call `function` of a float32 compute `single`, of a float64 `double`."""

    def choose(x: Any) -> Callable[[Any], Any] | None:
        return {types.float32: single, types.float64: double}.get(x)

    overload(function, jit_options=_AS_WRITTEN)(choose)


implement(exp, _exp_single, _exp_double)
implement(expm1, _expm1_single, _expm1_double)
implement(log, _log_single, _log_double)
implement(sigmoid, _sigmoid_single, _sigmoid_double)
implement(softplus, _softplus_single, _softplus_double)
implement(tanh, _tanh_single, _tanh_double)
implement(sin_cos_pi, _sin_cos_pi_single, _sin_cos_pi_double)
