"""Likelihoods: normalised, differentiated, summed and drawn as they say."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from ps_vae.errors import DataError, UsageError
from ps_vae.nn.likelihoods import LIKELIHOODS, likelihood

SIGMA = 0.7
DTYPES = [(np.float32, 2e-6), (np.float64, 1e-12)]


def _log_density(name: str, outputs: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    a = (outputs + bias).astype(np.float64)
    if name == "bernoulli":
        return np.sum(x * -np.logaddexp(0, -a) + (1 - x) * -np.logaddexp(0, a), axis=1)
    return stats.norm(a, SIGMA).logpdf(x).sum(axis=1)


def _draw(dtype: type, rows: int = 4, features: int = 67) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(6)
    outputs, x = 3 * generator.normal(size=(rows, features)), generator.random((rows, features))
    x[:, ::3] = x[:, ::3].round()
    return outputs.astype(dtype), generator.normal(size=features).astype(dtype), x.astype(dtype)


def test_bernoulli_probabilities_sum_to_one() -> None:
    family = likelihood("bernoulli")
    x = np.array(list(itertools.product([0.0, 1.0], repeat=8)))
    outputs, bias = np.tile(np.linspace(-4, 6, 8), (256, 1)), np.linspace(1, -1, 8)
    log_likelihood = np.empty(256)
    family.log_likelihood(outputs, bias, x, log_likelihood)
    assert np.exp(log_likelihood).sum() == pytest.approx(1, rel=1e-12)


def test_gaussian_density_integrates_to_one() -> None:
    family = likelihood("gaussian", SIGMA)

    def density(value: float) -> float:
        log_density = np.empty(1)
        family.log_likelihood(np.array([[0.3]]), np.array([0.1]), np.array([[value]]), log_density)
        return math.exp(log_density[0])

    assert integrate.quad(density, -10, 10, points=[0.4])[0] == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_likelihood_of_each_row_is_the_formula(name: str, dtype: type, rtol: float) -> None:
    outputs, bias, x = _draw(dtype)
    log_likelihood, d_bias = np.empty(4), np.empty_like(bias)
    expected = _log_density(name, outputs, bias, x)
    family = likelihood(name, SIGMA)
    family.log_likelihood(outputs, bias, x, log_likelihood)
    np.testing.assert_allclose(log_likelihood, expected, rtol=rtol)
    family.log_likelihood(outputs, bias, x[:2], log_likelihood)
    np.testing.assert_allclose(log_likelihood, _log_density(name, outputs, bias, x[[0, 1, 0, 1]]), rtol=rtol)
    total = family.loss_gradient(outputs, bias, x, log_likelihood, d_bias)
    np.testing.assert_allclose(log_likelihood, expected, rtol=rtol)
    assert total == pytest.approx(expected.sum(), rel=rtol)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_loss_gradient_matches_central_differences(name: str) -> None:
    outputs, bias, x = _draw(np.float64)
    step, d_bias = 1e-5, np.full_like(bias, np.nan)
    slopes = np.empty_like(outputs)
    for column in range(outputs.shape[1]):
        moved = np.zeros_like(bias)
        moved[column] = step
        difference = _log_density(name, outputs + moved, bias, x) - _log_density(name, outputs - moved, bias, x)
        slopes[:, column] = -difference / (2 * step)
    likelihood(name, SIGMA).loss_gradient(outputs, bias, x, np.empty(4), d_bias)
    np.testing.assert_allclose(outputs, slopes, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(d_bias, slopes.sum(axis=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_float32_gradient_agrees_with_float64(name: str) -> None:
    outputs, bias, x = _draw(np.float32)
    exact, d_exact, d_bias = outputs.astype(np.float64), np.empty(67), np.empty_like(bias)
    family = likelihood(name, SIGMA)
    family.loss_gradient(exact, bias.astype(np.float64), x.astype(np.float64), np.empty(4), d_exact)
    family.loss_gradient(outputs, bias, x, np.empty(4), d_bias)
    np.testing.assert_allclose(outputs, exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(d_bias, d_exact, rtol=1e-5, atol=1e-5)


def test_bernoulli_is_finite_at_extreme_logits_and_nan_is_not_hidden() -> None:
    family = likelihood("bernoulli")
    outputs = np.array([[1e4, -1e4, 300], [1e4, -1e4, np.nan]], np.float32)
    x, log_likelihood, d_bias = np.array([[1, 0, 0]] * 2, np.float32), np.empty(2), np.empty(3, np.float32)
    family.loss_gradient(outputs, np.zeros(3, np.float32), x, log_likelihood, d_bias)
    assert log_likelihood[0] == -300
    assert np.isnan(log_likelihood[1])
    np.testing.assert_array_equal(outputs[0], [0, 0, 1])
    assert np.isnan(d_bias[2])


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_have_the_mean_of_the_distribution(name: str) -> None:
    family = likelihood(name, SIGMA)
    rows, features = 20_000, 5
    outputs, bias = np.tile(np.linspace(-2, 2, features, dtype=np.float32), (rows, 1)), np.ones(features, np.float32)
    mean = family.mean(outputs.copy(), bias)[0].astype(np.float64)
    drawn = family.sample(outputs, bias, seed=1, step=0, rows=np.arange(rows))
    logits = np.linspace(-2, 2, features) + 1
    np.testing.assert_allclose(mean, logits if name == "gaussian" else 1 / (1 + np.exp(-logits)), rtol=1e-6)
    deviation = SIGMA if name == "gaussian" else np.sqrt(mean * (1 - mean))
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 4 * deviation / math.sqrt(rows))
    np.testing.assert_allclose(drawn.std(axis=0), deviation * np.ones(features), rtol=0.03)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_initial_bias_makes_the_mean_of_the_data(name: str) -> None:
    family, means = likelihood(name, SIGMA), np.array([0.01, 0.5, 0.9])
    bias = family.initial_bias(means)
    np.testing.assert_allclose(family.mean(np.zeros((1, 3)), bias)[0], means, rtol=1e-12)


def test_initial_bias_of_a_pixel_that_is_never_on_is_finite() -> None:
    np.testing.assert_allclose(likelihood("bernoulli").initial_bias(np.array([0.0, 1.0])), [-6.906755, 6.906755])


@pytest.mark.parametrize(
    ("name", "value"), [("bernoulli", 1.5), ("bernoulli", -0.1), ("bernoulli", np.nan), ("gaussian", np.inf)]
)
def test_data_that_cannot_be_an_x_is_refused_with_its_place(name: str, value: float) -> None:
    data = np.full((6, 5), 0.5, np.float32)
    likelihood(name).check_data(data)
    data[3, 2] = value
    with pytest.raises(DataError, match="row 3, column 2"):
        likelihood(name).check_data(data)


def test_an_unknown_likelihood_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'poisson' is not known: use bernoulli, gaussian"):
        likelihood("poisson")
