"""Densities of samples: mixtures, the standard normal, the posterior's; against SciPy and central differences."""

import numpy as np
import pytest
from scipy import special, stats

from ps_vae.nn import gaussian
from ps_vae.nn.cube import to_cube, to_cube_backward
from ps_vae.nn.mixture import log_mixture, log_mixture_gradient

DTYPES = [(np.float32, 2e-5), (np.float64, 1e-12)]


def _mixture(dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u (7, 3), components (4, 6), log pi (4,)."""
    generator = np.random.default_rng(3)
    log_pi = special.log_softmax(generator.normal(size=4))
    return generator.normal(size=(7, 3)).astype(dtype), generator.normal(size=(4, 6)).astype(dtype), log_pi


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
def test_mixture_density_is_the_sum_of_its_components(dtype: type, rtol: float) -> None:
    u, components, log_pi = _mixture(dtype)
    log_density = np.empty(7)
    log_mixture(u, components, log_pi, log_density)
    means, deviations = components[:, :3].astype(float), np.exp(components[:, 3:].astype(float) / 2)
    densities = stats.norm.pdf(u.astype(float)[:, None], means, deviations).prod(axis=2)
    np.testing.assert_allclose(log_density, np.log(densities @ np.exp(log_pi)), rtol=rtol)


def test_mixture_density_of_a_far_point_does_not_vanish() -> None:
    _, components, log_pi = _mixture(np.float32)
    log_density = np.empty(1)
    log_mixture(np.full((1, 3), 1e4, np.float32), components, log_pi, log_density)
    assert -1e10 < log_density[0] < -1e6


def test_a_point_that_is_too_far_for_float32_has_no_density_and_belongs_to_no_component_more_than_to_others() -> None:
    _, components, log_pi = _mixture(np.float32)
    log_density, d_log_pi = np.empty(1), np.empty(4)
    far, d_components = np.full((1, 3), 1e25, np.float32), np.empty_like(components)
    log_mixture_gradient(far, components, log_pi, np.ones(1), log_density, np.zeros_like(far), d_components, d_log_pi)
    assert log_density[0] == -np.inf
    np.testing.assert_allclose(d_log_pi, -0.25)


def test_mixture_gradients_match_central_differences_of_the_weighted_sum() -> None:
    given = _mixture(np.float64)
    weight = np.random.default_rng(4).random(7)

    def loss(*arrays: np.ndarray) -> float:
        log_density = np.empty(7)
        log_mixture(*arrays, log_density)
        return -float(weight @ log_density)

    before = np.random.default_rng(5).normal(size=(7, 3))
    d_u, d_components, d_log_pi = before.copy(), np.full((4, 6), np.nan), np.full(4, np.nan)
    log_mixture_gradient(*given, weight, np.empty(7), d_u, d_components, d_log_pi)
    step = 1e-5
    for which, gradient in enumerate([d_u - before, d_components, d_log_pi]):
        for place in np.ndindex(gradient.shape):
            moved = [array.copy() for array in given]
            moved[which][place] += step
            above = loss(*moved)
            moved[which][place] -= 2 * step
            assert gradient[place] == pytest.approx((above - loss(*moved)) / (2 * step), rel=1e-6, abs=1e-9)


def test_nan_in_a_point_reaches_its_density_alone() -> None:
    u, components, log_pi = _mixture(np.float32)
    u[2, 1] = np.nan
    log_density = np.empty(7)
    log_mixture(u, components, log_pi, log_density)
    np.testing.assert_array_equal(np.isnan(log_density), np.arange(7) == 2)


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
def test_densities_of_several_samples_are_the_normal_ones(dtype: type, rtol: float) -> None:
    generator = np.random.default_rng(6)
    posterior, noise = generator.normal(size=(5, 6)).astype(dtype), generator.normal(size=(5, 4 * 3)).astype(dtype)
    z, log_q, log_p = np.empty((20, 3), dtype), np.empty(20), np.empty(20)
    gaussian.reparameterise(posterior, noise, z)
    gaussian.log_posterior(posterior, noise, log_q)
    gaussian.log_standard_normal(z, log_p)
    mean, deviation = posterior[:, :3].astype(float), np.exp(posterior[:, 3:].astype(float) / 2)
    samples = z.astype(float).reshape(4, 5, 3)
    np.testing.assert_allclose(
        samples, mean + deviation * noise.reshape(5, 4, 3).transpose(1, 0, 2), rtol=rtol, atol=rtol
    )
    np.testing.assert_allclose(
        log_q.reshape(4, 5), stats.norm.logpdf(samples, mean, deviation).sum(axis=2), rtol=100 * rtol
    )
    np.testing.assert_allclose(log_p.reshape(4, 5), stats.norm.logpdf(samples).sum(axis=2), rtol=rtol)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-7), (np.float64, 1e-15)])
def test_the_cube_is_the_distribution_function(dtype: type, atol: float) -> None:
    u = np.array([[-40, -5, -1, 0], [0.3, 2, 8, 40]], dtype)
    z = np.empty_like(u)
    to_cube(u, z)
    np.testing.assert_allclose(z, stats.norm.cdf(u.astype(float)), atol=atol, rtol=1e-6)
    d_z = np.full_like(u, 2)
    to_cube_backward(u, d_z)
    np.testing.assert_allclose(d_z, 2 * stats.norm.pdf(u.astype(float)), atol=atol, rtol=1e-6)
