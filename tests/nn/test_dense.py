"""The dense layer against sums written out."""

import numpy as np
import pytest

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


def test_single_precision_is_double_precision_to_rounding() -> None:
    generator = np.random.default_rng(1)
    x, w, d = (generator.normal(size=shape).astype(np.float32) for shape in ((30, 70), (70, 50), (30, 50)))
    y, d_w, d_x = np.empty_like(d), np.empty_like(w), np.empty_like(x)
    dense(x, w, y)
    dense_backward(x, w, d, d_weight=d_w, d_inputs=d_x)
    for result, left, right in ((y, x, w), (d_w, x.T, d), (d_x, d, w.T)):
        exact, magnitude = left.astype(np.float64) @ right, np.abs(left.astype(np.float64)) @ np.abs(right)
        # Higham (2002), section 3.5: a sum of k terms, each rounded once.
        bound = left.shape[1] * 2.0**-24 * magnitude * 1.001
        assert (np.abs(result - exact) <= bound).all()


def test_inputs_in_another_order_give_the_same_bits() -> None:
    generator = np.random.default_rng(2)
    x, w, d = (generator.normal(size=shape).astype(np.float32) for shape in ((30, 70), (70, 50), (30, 50)))
    wide = np.repeat(x, 2, axis=1)
    expected, expected_gradient = np.empty_like(d), np.empty_like(w)
    dense(x, w, expected)
    dense_backward(x, w, d, d_weight=expected_gradient, d_inputs=None)
    for same in (np.asfortranarray(x), wide[:, ::2]):
        y, d_w = np.empty_like(d), np.empty_like(w)
        dense(same, w, y)
        dense_backward(same, w, d, d_weight=d_w, d_inputs=None)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(d_w, expected_gradient)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_either_gradient_may_be_left_out(dtype: type) -> None:
    x, w, d = np.ones((3, 4), dtype), np.ones((4, 5), dtype), np.ones((3, 5), dtype)
    d_w, d_x = np.empty_like(w), np.empty_like(x)
    dense_backward(x, w, d, d_weight=d_w, d_inputs=None)
    np.testing.assert_array_equal(d_w, np.full((4, 5), 3.0))
    dense_backward(x, w, d, d_weight=None, d_inputs=d_x)
    np.testing.assert_array_equal(d_x, np.full((3, 4), 5.0))
