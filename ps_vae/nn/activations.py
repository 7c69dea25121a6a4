"""Activations, fused with the bias that stands before them and with its gradient.

    forward    y = f(a + bias)                              in place of a
    backward   d_a = d_y f'(a + bias),  d_bias = sum over rows of d_a       in place of d_y

The derivative is expressed by the output, so that what went in need not be kept:

    identity   f' = 1
    relu       f' = 1 where y > 0, else 0
    sigmoid    f' = y (1 - y)
    softplus   f' = sigmoid(a + bias) = 1 - exp(-y)
    tanh       f' = 1 - y^2

NaN passes through every one of them, forward and backward: a diverged run has to be seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ps_vae.jit import kernel
from ps_vae.nn.arrays import Floats
from ps_vae.nn.elementary import expm1, sigmoid, softplus, tanh

__all__ = ["ACTIVATIONS", "Activation"]


@dataclass(frozen=True, slots=True)
class Activation:
    """An element-wise function between two layers.

    forward(outputs, bias)             outputs (rows, width) float32 or float64, C order, in place; bias (width,)
    backward(d_outputs, outputs, d_bias)
                                       d_outputs (rows, width) in place; outputs what forward left; d_bias (width,)
                                       overwritten
    rectifies                          whether half of the inputs are cut off (initial weights: He, not Glorot)
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    rectifies: bool = False


@kernel
def _identity(outputs: Floats, bias: Floats) -> None:
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            outputs[i, j] += bias[j]


@kernel
def _identity_backward(d_outputs: Floats, outputs: Floats, d_bias: Floats) -> None:
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            d_bias[j] += d_outputs[i, j]


@kernel
def _relu(outputs: Floats, bias: Floats) -> None:
    zero = outputs.dtype.type(0)
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            a = outputs[i, j] + bias[j]
            outputs[i, j] = zero if a < zero else a


@kernel
def _relu_backward(d_outputs: Floats, outputs: Floats, d_bias: Floats) -> None:
    zero = outputs.dtype.type(0)
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            d = zero if outputs[i, j] <= zero else d_outputs[i, j]
            d_outputs[i, j] = d
            d_bias[j] += d


@kernel
def _sigmoid(outputs: Floats, bias: Floats) -> None:
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            outputs[i, j] = sigmoid(outputs[i, j] + bias[j])


@kernel
def _sigmoid_backward(d_outputs: Floats, outputs: Floats, d_bias: Floats) -> None:
    one = outputs.dtype.type(1)
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            y = outputs[i, j]
            d = d_outputs[i, j] * (y * (one - y))
            d_outputs[i, j] = d
            d_bias[j] += d


@kernel
def _softplus(outputs: Floats, bias: Floats) -> None:
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            outputs[i, j] = softplus(outputs[i, j] + bias[j])


@kernel
def _softplus_backward(d_outputs: Floats, outputs: Floats, d_bias: Floats) -> None:
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            d = d_outputs[i, j] * -expm1(-outputs[i, j])
            d_outputs[i, j] = d
            d_bias[j] += d


@kernel
def _tanh(outputs: Floats, bias: Floats) -> None:
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            outputs[i, j] = tanh(outputs[i, j] + bias[j])


@kernel
def _tanh_backward(d_outputs: Floats, outputs: Floats, d_bias: Floats) -> None:
    one = outputs.dtype.type(1)
    d_bias[:] = 0
    for i in range(outputs.shape[0]):
        for j in range(outputs.shape[1]):
            y = outputs[i, j]
            d = d_outputs[i, j] * (one - y * y)
            d_outputs[i, j] = d
            d_bias[j] += d


ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("identity", _identity, _identity_backward),
        Activation("relu", _relu, _relu_backward, rectifies=True),
        Activation("sigmoid", _sigmoid, _sigmoid_backward),
        Activation("softplus", _softplus, _softplus_backward),
        Activation("tanh", _tanh, _tanh_backward),
    )
}
