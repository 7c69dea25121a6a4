"""log p(x) by importance sampling, on linear-Gaussian models whose evidence is known in closed form.

x = W^T z + b + sigma e with z, e standard normal: x is normal with mean b and covariance W^T W + sigma^2. Where the
rows of W are orthogonal, the posterior is diagonal, of precision 1 + |W_j|^2 / sigma^2 and mean
W (x - b) / sigma^2 / precision.
"""

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from ps_vae.errors import UsageError
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.evidence import estimate_evidence
from ps_vae.vae.inference import decode, encode
from ps_vae.vae.layout import ParameterLayout, Parameters

INPUTS, LATENT, SIGMA = 12, 3, 0.5
ROWS = np.arange(6, dtype=np.int64)


def _linear_gaussian(dtype: type, widen: float = 0.0, shift: float = 0.0) -> tuple[Parameters, np.ndarray, np.ndarray]:
    """A model, exact where widen (of the log-variance) and shift (of the mean) are zero; x; log p(x)."""
    generator = np.random.default_rng(9)
    orthogonal, _ = np.linalg.qr(generator.normal(size=(INPUTS, LATENT)))
    weight, bias = np.array([[2.0], [1.0], [0.3]]) * orthogonal.T, generator.normal(size=INPUTS)
    x = (generator.normal(size=(6, LATENT)) @ weight + bias + SIGMA * generator.normal(size=(6, INPUTS))).astype(dtype)
    exact = stats.multivariate_normal(bias, weight.T @ weight + SIGMA**2 * np.eye(INPUTS)).logpdf(x)

    variance = 1 / (1 + np.square(weight).sum(axis=1) / SIGMA**2)
    to_mean = weight.T * variance / SIGMA**2

    def unbounded(v: float) -> float:
        return optimize.brentq(lambda u: u + np.logaddexp(0, -20 - u) - np.logaddexp(0, u - 10) - v, -19, 9, xtol=1e-14)

    layout = ParameterLayout(ModelConfig(INPUTS, (), LATENT, "identity", "gaussian", SIGMA))
    vector = layout.zeros(dtype)
    views = layout.views(vector)
    views["posterior.weight"][:, :LATENT] = to_mean
    views["posterior.bias"][:LATENT] = shift - bias @ to_mean
    views["posterior.bias"][LATENT:] = [unbounded(v + widen) for v in np.log(variance)]
    views["likelihood.weight"][:] = weight
    views["likelihood.bias"][:] = bias
    return layout.bind(vector), x, exact


@pytest.mark.parametrize(("widen", "shift"), [(0.3, 0.0), (0.5, 0.2), (-0.2, 0.1)])
def test_estimate_agrees_with_the_closed_form_within_three_standard_errors(widen: float, shift: float) -> None:
    parameters, x, exact = _linear_gaussian(np.float32, widen, shift)
    evidence = estimate_evidence(parameters, x, samples=5000, seed=1, rows=ROWS)
    assert np.all(evidence.standard_error > 1e-4)
    np.testing.assert_array_less(np.abs(evidence.log_evidence - exact), 3 * evidence.standard_error)
    assert np.all((evidence.effective_sample_size > 100) & (evidence.effective_sample_size < 5000))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 1e-12)])
def test_at_the_exact_posterior_every_weight_is_equal(dtype: type, tolerance: float) -> None:
    parameters, x, exact = _linear_gaussian(dtype)
    evidence = estimate_evidence(parameters, x, samples=700, seed=1, rows=ROWS)
    np.testing.assert_allclose(evidence.log_evidence, exact, rtol=0, atol=tolerance)
    np.testing.assert_array_less(evidence.standard_error, tolerance)
    np.testing.assert_allclose(evidence.effective_sample_size, 700, rtol=tolerance)


def test_standard_error_is_the_spread_over_seeds() -> None:
    parameters, x, _ = _linear_gaussian(np.float32, 0.5, 0.2)
    runs = [estimate_evidence(parameters, x[:2], samples=500, seed=seed, rows=ROWS[:2]) for seed in range(200)]
    spread = np.std([run.log_evidence for run in runs], axis=0)
    stated = np.mean([run.standard_error for run in runs], axis=0)
    np.testing.assert_allclose(stated, spread, rtol=0.2)


def test_effective_sample_size_is_less_where_the_proposal_is_worse() -> None:
    sizes = []
    for shift in (0.1, 0.3, 0.6):
        parameters, x, _ = _linear_gaussian(np.float32, 0.0, shift)
        sizes.append(estimate_evidence(parameters, x, samples=1000, seed=1, rows=ROWS).effective_sample_size.mean())
    assert sizes[0] > sizes[1] > sizes[2] > 1


def test_a_row_has_the_same_bits_however_the_rows_are_split() -> None:
    parameters, x, _ = _linear_gaussian(np.float32, 0.3)
    whole = estimate_evidence(parameters, x, samples=600, seed=1, rows=ROWS)
    for part in ([4], [5, 0], [3, 2, 1]):
        split = estimate_evidence(parameters, x[part], samples=600, seed=1, rows=ROWS[part])
        np.testing.assert_array_equal(split.log_evidence, whole.log_evidence[part])
        np.testing.assert_array_equal(split.standard_error, whole.standard_error[part])


def test_another_seed_or_name_gives_another_estimate() -> None:
    parameters, x, _ = _linear_gaussian(np.float32, 0.3)
    first, seed, name = (
        estimate_evidence(parameters, x, samples=50, seed=seed, rows=ROWS + offset).log_evidence
        for seed, offset in ((1, 0), (2, 0), (1, 10))
    )
    assert np.all(first != seed)
    assert np.all(first != name)


def test_one_sample_has_no_standard_error_and_is_refused() -> None:
    parameters, x, _ = _linear_gaussian(np.float32)
    with pytest.raises(UsageError, match="at least 2"):
        estimate_evidence(parameters, x, samples=1, seed=1, rows=ROWS)


def test_an_x_that_no_sample_can_make_has_no_likelihood_and_no_nan() -> None:
    parameters, x, _ = _linear_gaussian(np.float32)
    x[1] = 3e38
    with np.errstate(over="ignore", invalid="ignore"):
        evidence = estimate_evidence(parameters, x, samples=10, seed=1, rows=ROWS)
    assert (evidence.log_evidence[1], evidence.standard_error[1], evidence.effective_sample_size[1]) == (-np.inf, 0, 0)
    assert np.isfinite(evidence.log_evidence[[0, 2, 3, 4, 5]]).all()


def test_rows_and_names_have_to_agree() -> None:
    parameters, x, _ = _linear_gaussian(np.float32)
    with pytest.raises(UsageError, match=r"names of shape \(5,\)"):
        estimate_evidence(parameters, x, samples=10, seed=1, rows=ROWS[:5])


def test_standard_error_and_effective_sample_size_fit_together() -> None:
    """Both follow from sum w and sum w^2: se^2 = (K / ess - 1) / (K - 1)."""
    parameters, x, _ = _linear_gaussian(np.float64, 0.5)
    evidence = estimate_evidence(parameters, x, samples=5, seed=1, rows=ROWS)
    expected = np.sqrt((5 / evidence.effective_sample_size - 1) / 4)
    np.testing.assert_allclose(evidence.standard_error, expected, rtol=1e-9)


def _widen(layout: ParameterLayout, vector: np.ndarray) -> None:
    """Posteriors that cover the prior, so that no weight is much larger than the others."""
    views = layout.views(vector)
    views["posterior.weight"][:] *= 0.2
    views["posterior.bias"][layout.config.latent :] = 1.5


@pytest.mark.parametrize("prior", ["mixture:3", "vamp:3"])
def test_evidence_with_a_mixture_as_prior_is_that_of_a_mixture_of_normals(prior: str) -> None:
    """x = W^T u + b + sigma e: each component of u makes a normal of x."""
    generator = np.random.default_rng(4)
    layout = ParameterLayout(ModelConfig(4, (), 2, "identity", "gaussian", SIGMA, prior=prior))
    vector = layout.zeros(np.float64)
    for view in layout.views(vector).values():
        view[:] = 0.5 * generator.normal(size=view.shape)
    _widen(layout, vector)
    parameters = layout.bind(vector)
    if prior.startswith("vamp"):
        means, log_variances = encode(parameters, parameters.prior[0])
        shares = np.full(3, 1 / 3)
    else:
        means, u = np.split(parameters.prior[0], 2, axis=1)
        log_variances = u + np.logaddexp(0, -20 - u) - np.logaddexp(0, u - 10)
        shares = special.softmax(parameters.prior[1])
    weight, bias = parameters.decoder[0].weight, parameters.decoder[0].bias
    x = generator.normal(size=(6, 4))
    densities = [
        stats.multivariate_normal(mean @ weight + bias, weight.T * np.exp(v) @ weight + SIGMA**2 * np.eye(4)).pdf(x)
        for mean, v in zip(means, log_variances, strict=True)
    ]
    evidence = estimate_evidence(parameters, x, samples=20_000, seed=1, rows=ROWS)
    np.testing.assert_array_less(
        np.abs(evidence.log_evidence - np.log(shares @ densities)), 3 * evidence.standard_error
    )
    assert evidence.standard_error.max() < 0.2


def test_evidence_with_a_uniform_prior_is_the_integral_over_the_unit_interval() -> None:
    layout = ParameterLayout(ModelConfig(3, (4,), 1, "tanh", prior="uniform"))
    vector = layout.zeros(np.float64)
    for view in layout.views(vector).values():
        view[:] = np.random.default_rng(8).normal(size=view.shape)
    _widen(layout, vector)
    parameters = layout.bind(vector)
    x = np.random.default_rng(9).integers(0, 2, size=(6, 3)).astype(float)

    def density(z: float, row: np.ndarray) -> float:
        p = decode(parameters, np.array([[z]]))[0]
        return float(np.prod(np.where(row == 1, p, 1 - p)))

    exact = [np.log(integrate.quad(density, 0, 1, args=(row,))[0]) for row in x]
    evidence = estimate_evidence(parameters, x, samples=20_000, seed=1, rows=ROWS)
    np.testing.assert_array_less(np.abs(evidence.log_evidence - exact), 3 * evidence.standard_error + 1e-9)
    assert evidence.standard_error.max() < 0.05
