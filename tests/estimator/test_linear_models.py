"""Linear models with a learned deviation have known optima: probabilistic PCA and factor analysis.

Tipping & Bishop (1999), equations 14 and 15; that the ELBO of a linear model has that optimum: Lucas et al. (2019).
"""

import numpy as np
import pytest
from scipy import linalg, stats
from sklearn.datasets import load_digits
from sklearn.decomposition import FactorAnalysis

from ps_vae import VAE
from ps_vae.vae.layout import ParameterLayout


def _linear_model(model: VAE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of x = W^T z + b + noise: W, b and the noise's variances."""
    parameters = ParameterLayout(model.config_.model).bind(model.weights_.astype(np.float64))
    (last,), (learned, floor) = parameters.decoder, parameters.own
    variances = np.exp(learned + np.logaddexp(0, floor - learned))
    return last.weight, last.bias, np.broadcast_to(variances, last.bias.shape)


def _log_likelihood(model: VAE, rows: np.ndarray) -> float:
    weight, bias, variances = _linear_model(model)
    return float(stats.multivariate_normal(bias, weight.T @ weight + np.diag(variances)).logpdf(rows).mean())


def test_a_shared_deviation_reaches_probabilistic_pca_by_two_workers() -> None:
    rows, latent = load_digits().data / 16, 10
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    principal, variance = vectors[:, : -latent - 1 : -1], values[:-latent].mean()
    covariance = principal * (values[: -latent - 1 : -1] - variance) @ principal.T + variance * np.eye(64)
    best = stats.multivariate_normal(rows.mean(axis=0), covariance).logpdf(rows).mean()

    model = VAE(latent, (), likelihood="gaussian-shared", bound="stl", epochs=400, workers=2, random_state=1)
    model.set_params(learning_rate=0.02, schedule="cosine").fit(rows)

    weight, _, variances = _linear_model(model)
    assert best - 0.05 < _log_likelihood(model, rows) < best + 1e-3
    assert np.degrees(linalg.subspace_angles(weight.T, principal)).max() < 2
    assert variances[0] == pytest.approx(variance, rel=0.02)


def test_a_deviation_for_each_feature_reaches_factor_analysis() -> None:
    rows = load_digits().data / 16
    # Of a column that never changes the likelihood has no bound.
    rows = rows[:, rows.std(axis=0) > 0]
    best = FactorAnalysis(5, tol=1e-8, max_iter=20_000, svd_method="lapack").fit(rows).score(rows)

    model = VAE(5, (), likelihood="gaussian-feature", bound="stl", epochs=1000, random_state=1)
    model.set_params(learning_rate=0.01, schedule="cosine").fit(rows)

    assert best - 0.1 < _log_likelihood(model, rows) < best + 1e-3
