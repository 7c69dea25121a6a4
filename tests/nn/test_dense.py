"""The dense layer against sums written out."""

import numpy as np

from ps_vae.nn.dense import dense, dense_backward


def test_forward_and_backward_are_the_sums() -> None:
    generator = np.random.default_rng(0)
    x, w, d = generator.normal(size=(3, 4)), generator.normal(size=(4, 5)), generator.normal(size=(3, 5))
    y, d_w, d_x = np.empty((3, 5)), np.empty((4, 5)), np.empty((3, 4))
    dense(x, w, y)
    dense_backward(x, w, d, d_weight=d_w, d_inputs=d_x)
    np.testing.assert_allclose(y, [[sum(x[i, k] * w[k, j] for k in range(4)) for j in range(5)] for i in range(3)])
    np.testing.assert_allclose(d_w, [[sum(x[i, k] * d[i, j] for i in range(3)) for j in range(5)] for k in range(4)])
    np.testing.assert_allclose(d_x, [[sum(d[i, j] * w[k, j] for j in range(5)) for k in range(4)] for i in range(3)])


def test_the_gradient_of_the_inputs_may_be_left_out() -> None:
    x, w, d, d_w = np.ones((3, 4)), np.ones((4, 5)), np.ones((3, 5)), np.empty((4, 5))
    dense_backward(x, w, d, d_weight=d_w, d_inputs=None)
    np.testing.assert_array_equal(d_w, np.full((4, 5), 3.0))
