"""Path derivatives have the mean of the plain estimators, and less variance where the posterior is exact."""

import numpy as np
import pytest
from scipy import optimize

from ps_vae.vae.bounds import Objective, bound
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.layout import ParameterLayout
from ps_vae.vae.network import Workspace
from ps_vae.vae.objective import objective_gradient

ROWS, DRAWS = 40, 800


def _gradients(config: ModelConfig, weights: np.ndarray, x: np.ndarray, objective: Objective, seed: int) -> np.ndarray:
    """Independent draws of the gradient's mean over ROWS copies of x, (DRAWS, size)."""
    layout = ParameterLayout(config)
    generator = np.random.default_rng(seed)
    workspace = Workspace(config, ROWS, np.float64, objective.bound.samples, trains=True)
    batch, gradient = np.tile(x, (ROWS, 1)), layout.zeros(np.float64)
    rows = []
    for _ in range(DRAWS):
        objective_gradient(
            layout.bind(weights),
            batch,
            generator.normal(size=workspace.noise.shape),
            objective=objective,
            workspace=workspace,
            gradient=layout.bind(gradient),
        )
        rows.append(gradient / ROWS)
    return np.array(rows)


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("prior", ["normal", "uniform", "mixture:2", "vamp:2"])
@pytest.mark.parametrize(("plain", "path"), [("elbo", "stl"), ("elbo:3", "stl:3"), ("iwae:4", "dreg:4")])
def test_path_derivative_has_the_same_mean(plain: str, path: str, prior: str, beta: float) -> None:
    config = ModelConfig(4, (), 2, prior=prior)
    layout, generator = ParameterLayout(config), np.random.default_rng(3)
    weights = layout.zeros(np.float64)
    for view in layout.views(weights).values():
        view[:] = generator.normal(size=view.shape)
    x = generator.integers(0, 2, size=4).astype(float)
    draws = [
        _gradients(config, weights, x, Objective(bound(name), beta), seed) for seed, name in ((1, plain), (2, path))
    ]
    # Along directions, of which few are tested, so that three standard errors mean what they say.
    directions = generator.normal(size=(3, layout.size))
    first, second = (each @ directions.T for each in draws)
    error = np.sqrt((first.var(axis=0, ddof=1) + second.var(axis=0, ddof=1)) / DRAWS)
    np.testing.assert_array_less(np.abs(first.mean(axis=0) - second.mean(axis=0)), 3 * error)
    scale = np.linalg.norm(directions, axis=1) * np.linalg.norm(draws[0].mean(axis=0))
    assert np.all(error < 0.02 * scale), "too few draws to tell anything"


def test_at_the_exact_posterior_the_path_derivative_has_no_variance() -> None:
    """A linear Gaussian model of one latent dimension: every sample says the same, in the plain estimator not."""
    config = ModelConfig(3, (), 1, likelihood="gaussian", sigma=0.5)
    layout, generator = ParameterLayout(config), np.random.default_rng(4)
    weights = layout.zeros(np.float64)
    views = layout.views(weights)
    w = views["likelihood.weight"]
    w[:] = generator.normal(size=w.shape)
    variance = 1 / (1 + np.square(w).sum() / 0.25)
    views["posterior.weight"][:, 0] = w[0] * variance / 0.25
    views["posterior.bias"][1] = optimize.brentq(
        lambda u: u + np.logaddexp(0, -20 - u) - np.logaddexp(0, u - 10) - np.log(variance), -19, 9, xtol=1e-14
    )
    x = generator.normal(size=3)
    encoder = slice(0, layout.tensors[2].offset)
    spread = {
        name: _gradients(config, weights, x, Objective(bound(name)), 5)[:, encoder].std(axis=0).max()
        for name in ("elbo", "stl", "iwae:3", "dreg:3")
    }
    assert spread["elbo"] > 0.1
    assert spread["iwae:3"] > 0.1
    assert spread["stl"] < 1e-10
    assert spread["dreg:3"] < 1e-10
