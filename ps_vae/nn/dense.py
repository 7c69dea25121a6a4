"""A dense layer on preallocated arrays: the matrix products only; the bias belongs to what follows.

    forward    outputs = inputs W                    (rows, in) (in, out) -> (rows, out)
    backward   dW = inputs^T d_outputs               (in, out), left out where others multiply
               d_inputs = d_outputs W^T              (rows, in), left out for the first layer

Bias and non-linearity are fused into one pass over the outputs (activations, gaussian, likelihoods).
float32 goes to our own products (module gemm): the same bits on every machine that has fused multiply-adds. float64,
which only checks, and machines without them go to BLAS: the same bits for the same shapes on the same machine.
"""

import numpy as np

from ps_vae.nn.arrays import Floats
from ps_vae.nn.gemm import product, product_left_transposed, product_right_transposed
from ps_vae.nn.simd import FUSED

__all__ = ["dense", "dense_backward", "weight_gradient"]


def dense(inputs: Floats, weight: Floats, outputs: Floats) -> None:
    """Overwrite `outputs` (rows, out) with `inputs` (rows, in) times `weight` (in, out); one dtype, C order.

    Inputs in another order are copied.
    """
    if _is_ours(inputs, weight):
        product(np.ascontiguousarray(inputs), weight, outputs)
    else:
        np.matmul(inputs, weight, out=outputs)


def dense_backward(
    inputs: Floats, weight: Floats, d_outputs: Floats, *, d_weight: Floats | None, d_inputs: Floats | None
) -> None:
    """Overwrite `d_weight` (in, out) and `d_inputs` (rows, in), each unless it is None; shapes as in `dense`."""
    if d_weight is not None:
        weight_gradient(inputs, d_outputs, d_weight)
    if d_inputs is None:
        return
    if _is_ours(d_outputs, weight):
        product_right_transposed(d_outputs, weight, d_inputs)
    else:
        np.matmul(d_outputs, weight.T, out=d_inputs)


def weight_gradient(inputs: Floats, d_outputs: Floats, d_weight: Floats) -> None:
    """Overwrite `d_weight` (in, out) with the transpose of `inputs` (rows, in) times `d_outputs` (rows, out)."""
    if _is_ours(inputs, d_outputs):
        product_left_transposed(np.ascontiguousarray(inputs), d_outputs, d_weight)
    else:
        np.matmul(inputs.T, d_outputs, out=d_weight)


def _is_ours(left: Floats, right: Floats) -> bool:
    return FUSED and left.dtype == np.float32 and right.dtype == np.float32
