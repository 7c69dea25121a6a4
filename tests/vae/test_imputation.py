"""What is expected of what is missing: against the closed form of a linear model, and for words and labels."""

import numpy as np
import pytest

from ps_vae.errors import UsageError
from ps_vae.nn.likelihoods import Variable
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.evidence import estimate_evidence
from ps_vae.vae.imputation import impute
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout, Parameters

FEATURES, LATENT = 5, 2


def linear_model() -> tuple[Parameters, np.ndarray, np.ndarray]:
    """A linear Gaussian model in float64, and mean and covariance of its p(x)."""
    variables = tuple(Variable(f"x{number}", "gaussian-feature", 1, number > 0) for number in range(FEATURES))
    layout = ParameterLayout(ModelConfig(FEATURES, (), LATENT, likelihood="x", variables=variables))
    generator = np.random.default_rng(2)
    scale, center = np.exp(generator.normal(size=FEATURES)), generator.normal(size=FEATURES)
    vector = initial_weights(layout, 0, (center, scale**2)).astype(np.float64)
    views = layout.views(vector)
    for name in ("posterior.weight", "likelihood.weight", "likelihood.bias"):
        views[name][:] = 0.5 * generator.normal(size=views[name].shape)
    # Hardly more than the prior: a proposal that misses nothing.
    views["posterior.weight"][:] *= 0.2
    views["posterior.bias"][LATENT:] = 0.2
    weight = views["likelihood.weight"] * views["likelihood.center"].size ** 0
    units = np.exp(views["likelihood.log_scale"])
    deviations = np.array([np.exp(0.5 * views[f"likelihood.{k}.log_variance"][0]) for k in range(FEATURES)]) * units
    mean = views["likelihood.center"] + units * views["likelihood.bias"]
    weight = views["likelihood.weight"] * units
    covariance = weight.T @ weight + np.diag(deviations**2)
    return layout.bind(vector), mean, covariance


def incomplete(rows: int) -> np.ndarray:
    generator = np.random.default_rng(5)
    _, mean, covariance = linear_model()
    x = generator.multivariate_normal(mean, covariance, rows)
    x[:, 1:][generator.random((rows, FEATURES - 1)) < 0.4] = np.nan
    return x


def test_a_linear_models_expectation_is_the_conditional_mean_of_its_gaussian() -> None:
    parameters, mean, covariance = linear_model()
    x = incomplete(12)
    filled = impute(parameters, x, samples=40_000, seed=1, rows=np.arange(len(x)))
    assert np.isnan(x).any(axis=1).sum() > 6
    for row, got in zip(x, filled, strict=True):
        there = ~np.isnan(row)
        np.testing.assert_array_equal(got[there], row[there])
        gain = covariance[np.ix_(~there, there)] @ np.linalg.inv(covariance[np.ix_(there, there)])
        expected = mean[~there] + gain @ (row - mean)[there]
        # 40,000 samples, of which some thousands count.
        deviations = np.sqrt(np.diag(covariance)[~there])
        np.testing.assert_allclose((got[~there] - expected) / deviations, 0, atol=0.05)


def test_evidence_of_what_is_there_is_the_marginal_density() -> None:
    parameters, mean, covariance = linear_model()
    x = incomplete(12)
    evidence = estimate_evidence(parameters, x, samples=20_000, seed=1, rows=np.arange(len(x)))
    for row, got, error in zip(x, evidence.log_evidence, evidence.standard_error, strict=True):
        there = ~np.isnan(row)
        difference, part = (row - mean)[there], covariance[np.ix_(there, there)]
        quadratic = difference @ np.linalg.solve(part, difference)
        expected = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * part)[1])
        assert abs(got - expected) < 5 * error


def test_a_rows_values_do_not_depend_on_the_rows_beside_it_or_on_the_chunks_of_samples() -> None:
    parameters, _, _ = linear_model()
    x, names = incomplete(6), np.arange(6)
    filled = impute(parameters, x, samples=700, seed=1, rows=names)
    np.testing.assert_array_equal(impute(parameters, x[3:4], samples=700, seed=1, rows=names[3:4]), filled[3:4])
    assert not np.array_equal(impute(parameters, x, samples=700, seed=2, rows=names), filled)


def test_a_rows_label_is_seen_and_words_are_shares() -> None:
    variables = (Variable("a", "categorical", 3, True), Variable("b", "gaussian-feature", 1, True))
    layout = ParameterLayout(ModelConfig(4, (), 1, likelihood="x", variables=variables, classes=2))
    vector = initial_weights(layout, 0).astype(np.float64)
    views = layout.views(vector)
    for name in ("posterior.weight", "likelihood.weight"):
        views[name][:] = 0
    # The second class says all: the third word, and 2 deviations.
    views["likelihood.weight"][2] = [-50, -50, 50, 2]
    x = np.full((2, 6), np.nan)
    x[:, 4:] = np.eye(2)
    filled = impute(layout.bind(vector), x, samples=50, seed=0, rows=np.arange(2))
    np.testing.assert_allclose(filled, [[1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 1, 2]], atol=1e-9)


def test_no_samples_and_other_shapes_are_refused() -> None:
    parameters, _, _ = linear_model()
    with pytest.raises(UsageError, match="0 importance samples"):
        impute(parameters, incomplete(2), samples=0, seed=0, rows=np.arange(2))
    with pytest.raises(UsageError, match=r"this model needs \(n, 5\), \(n,\)"):
        impute(parameters, incomplete(2)[:, 1:], samples=5, seed=0, rows=np.arange(2))
