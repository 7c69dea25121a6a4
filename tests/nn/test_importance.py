"""Importance weights and the path derivative: by their definitions."""

import numpy as np
import pytest
from scipy import special

from ps_vae.nn.importance import normalise, to_path


def test_weights_of_each_row_sum_to_one_in_the_proportion_of_the_samples() -> None:
    log_weight = np.random.default_rng(1).normal(scale=500, size=12)
    weight = np.empty(12)
    normalise(log_weight, 4, weight)
    np.testing.assert_allclose(weight.reshape(3, 4), special.softmax(log_weight.reshape(3, 4), axis=0), rtol=1e-12)


def test_a_nan_is_seen_in_the_weights_of_its_row_alone() -> None:
    log_weight, weight = np.zeros(6), np.empty(6)
    log_weight[4] = np.nan
    normalise(log_weight, 2, weight)
    np.testing.assert_array_equal(np.isnan(weight.reshape(3, 2)), [[True, False]] * 3)


@pytest.mark.parametrize("is_weighed", [True, False])
@pytest.mark.parametrize("beta", [1.0, 0.5, 0.0])
def test_path_derivative_is_its_formula(beta: float, is_weighed: bool) -> None:
    generator = np.random.default_rng(2)
    rows, latent, samples = 4, 3, 2
    posterior, noise = generator.normal(size=(rows, 2 * latent)), generator.normal(size=(rows, samples * latent))
    weight = generator.random((samples, rows))
    d_u = generator.normal(size=(samples, rows, latent))
    got = d_u.reshape(-1, latent).copy()
    to_path(got, posterior, noise, weight.reshape(-1), beta, weights_are_functions=is_weighed)
    dlog_q = -noise.reshape(rows, samples, latent).transpose(1, 0, 2) / np.exp(posterior[:, latent:] / 2)
    scale = 1 - beta + beta * weight if is_weighed else np.ones_like(weight)
    expected = scale[..., None] * (d_u + beta * weight[..., None] * dlog_q)
    np.testing.assert_allclose(got.reshape(d_u.shape), expected, rtol=1e-12)
