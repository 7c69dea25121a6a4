"""A dense layer on preallocated arrays: the matrix products only; the bias belongs to what follows.

    forward    outputs = inputs W                    (rows, in) (in, out) -> (rows, out)
    backward   dW = inputs^T d_outputs               (in, out)
               d_inputs = d_outputs W^T              (rows, in), left out for the first layer

Bias and non-linearity are fused into one pass over the outputs (activations, gaussian, likelihoods).
BLAS gives the same bits for the same shapes, wherever the arrays lie.
"""

import numpy as np

from ps_vae.nn.arrays import Floats

__all__ = ["dense", "dense_backward"]


def dense(inputs: Floats, weight: Floats, outputs: Floats) -> None:
    """Overwrite `outputs` (rows, out) with `inputs` (rows, in) times `weight` (in, out); one dtype, C order."""
    np.matmul(inputs, weight, out=outputs)


def dense_backward(
    inputs: Floats, weight: Floats, d_outputs: Floats, *, d_weight: Floats, d_inputs: Floats | None
) -> None:
    """Overwrite `d_weight` (in, out) and, unless it is None, `d_inputs` (rows, in); shapes as in `dense`."""
    np.matmul(inputs.T, d_outputs, out=d_weight)
    if d_inputs is not None:
        np.matmul(d_outputs, weight.T, out=d_inputs)
