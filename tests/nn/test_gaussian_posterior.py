"""The posterior's kernels against numerical integration, formulas and central differences."""

import numpy as np
import pytest
from scipy import integrate, stats

from ps_vae.nn import gaussian

DTYPES = [(np.float32, 2e-6), (np.float64, 1e-12)]


def _posterior(dtype: type, rows: int = 5, latent: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, 2 * latent)).astype(dtype)


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
def test_kl_is_the_integral_of_its_definition(dtype: type, rtol: float) -> None:
    posterior, kl = _posterior(dtype), np.empty(5)
    total = gaussian.kl_standard_normal(posterior, kl)

    def integral(mean: float, v: float) -> float:
        q = stats.norm(mean, np.exp(v / 2))
        return integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)), -40, 40, points=[mean])[0]

    expected = [sum(integral(row[j], row[3 + j]) for j in range(3)) for row in posterior.astype(np.float64)]
    np.testing.assert_allclose(kl, expected, rtol=max(rtol, 1e-7))
    assert total == pytest.approx(kl.sum(), rel=1e-12)


def test_kl_of_the_prior_is_zero() -> None:
    kl = np.empty(2)
    assert gaussian.kl_standard_normal(np.zeros((2, 8), np.float32), kl) == 0


def test_kl_gradient_matches_central_differences_and_is_added() -> None:
    posterior, kl, step = _posterior(np.float64), np.empty(5), 1e-5
    before = np.random.default_rng(2).normal(size=posterior.shape)
    after = before.copy()
    gaussian.kl_standard_normal(posterior, kl)
    gaussian.add_kl_gradient(posterior, kl, 0.7, after)
    for place in np.ndindex(posterior.shape):
        up, down = posterior.copy(), posterior.copy()
        up[place] += step
        down[place] -= step
        slope = (gaussian.kl_standard_normal(up, kl) - gaussian.kl_standard_normal(down, kl)) / (2 * step)
        assert after[place] - before[place] == pytest.approx(0.7 * slope, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
def test_bound_is_its_formula_and_the_mean_gets_only_its_bias(dtype: type, rtol: float) -> None:
    posterior, bias = (10 * _posterior(dtype)), np.arange(6, dtype=dtype)
    given = (posterior + bias).astype(np.float64)
    slope = np.empty((5, 3), dtype)
    gaussian.bound_posterior(posterior, bias, slope)
    u = given[:, 3:]
    expected = u + np.logaddexp(0, -20 - u) - np.logaddexp(0, u - 10)
    np.testing.assert_allclose(posterior[:, :3], given[:, :3], rtol=rtol)
    np.testing.assert_allclose(posterior[:, 3:], expected, rtol=rtol, atol=10 * rtol)
    step = 1e-5
    wider = [x + np.logaddexp(0, -20 - x) - np.logaddexp(0, x - 10) for x in (u - step, u + step)]
    np.testing.assert_allclose(slope, (wider[1] - wider[0]) / (2 * step), rtol=max(rtol, 1e-8), atol=1e-8)


def test_bound_is_the_identity_and_has_a_slope_where_it_says_so() -> None:
    def bounded(*u: float) -> tuple[np.ndarray, np.ndarray]:
        posterior, slope = np.array([[0, each] for each in u], np.float32), np.empty((len(u), 1), np.float32)
        gaussian.bound_posterior(posterior, np.zeros(2, np.float32), slope)
        return posterior[:, 1], slope[:, 0]

    within = np.linspace(-10.7, 0.78, 500)
    assert np.abs(bounded(*within)[0] - within).max() < 1e-4
    np.testing.assert_allclose(bounded(5, 8)[0], [4.993, 7.87], atol=4e-3)
    slopes = bounded(-1e4, -29.2, 19.2, 97, 97.4)[1]
    assert slopes[0] > 0
    np.testing.assert_allclose(slopes[1:3], 1e-4, rtol=0.02)
    assert slopes[3] > 0 == slopes[4]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_variance_stays_between_the_bounds_whatever_the_encoder_gives(dtype: type) -> None:
    extremes = np.array([-np.inf, -1e30, -1e4, -25, -10, 0, 15, 1e4, 1e30, np.inf], dtype)
    posterior, slope = np.stack([np.zeros_like(extremes), extremes], axis=1), np.empty((10, 1), dtype)
    gaussian.bound_posterior(posterior, np.zeros(2, dtype), slope)
    v = posterior[:, 1]
    assert np.all(np.diff(v) >= 0)
    assert v[0] == -20
    assert v[-1] == 10
    assert abs(v[4] + 10) < 1e-4
    assert abs(v[5]) < 1e-4
    assert np.all(slope >= 0)
    assert np.all(slope[3:7] > 0)


def test_nan_in_the_encoder_reaches_the_divergence() -> None:
    posterior, slope, kl = np.zeros((2, 4), np.float32), np.empty((2, 2), np.float32), np.empty(2)
    posterior[0, 3] = np.nan
    gaussian.bound_posterior(posterior, np.zeros(4, np.float32), slope)
    assert np.isnan(gaussian.kl_standard_normal(posterior, kl))
    np.testing.assert_array_equal(np.isnan(kl), [True, False])


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
def test_sample_is_mean_plus_deviation_times_noise(dtype: type, rtol: float) -> None:
    posterior, noise, z = _posterior(dtype), _posterior(dtype)[:, :3].copy(), np.empty((5, 3), dtype)
    gaussian.reparameterise(posterior, noise, z)
    exact = posterior.astype(np.float64)
    expected = exact[:, :3] + np.exp(exact[:, 3:] / 2) * noise
    np.testing.assert_allclose(z, expected, rtol=rtol, atol=rtol)


def test_sample_gradient_matches_central_differences() -> None:
    generator, step = np.random.default_rng(4), 1e-6
    posterior, noise, d_z = _posterior(np.float64), generator.normal(size=(5, 3)), generator.normal(size=(5, 3))
    d_posterior = np.full((5, 6), np.nan)
    gaussian.reparameterise_backward(d_z, posterior, noise, d_posterior)
    for place in np.ndindex(posterior.shape):
        values = []
        for sign in (1, -1):
            moved, z = posterior.copy(), np.empty((5, 3))
            moved[place] += sign * step
            gaussian.reparameterise(moved, noise, z)
            values.append(np.sum(d_z * z))
        assert d_posterior[place] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-7, abs=1e-8)


def test_bound_gradient_scales_the_log_variances_and_sums_the_bias() -> None:
    generator = np.random.default_rng(5)
    d, slope, d_bias = generator.normal(size=(5, 6)), generator.random((5, 3)), np.full(6, np.nan)
    expected = d * np.hstack([np.ones((5, 3)), slope])
    gaussian.bound_posterior_backward(d, slope, d_bias)
    np.testing.assert_allclose(d, expected, rtol=1e-15)
    np.testing.assert_allclose(d_bias, expected.sum(axis=0), rtol=1e-13)
