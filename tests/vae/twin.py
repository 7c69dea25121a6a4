"""A small model with a batch, its slopes by central differences, and the same model as the textbooks write it."""

from collections.abc import Collection

import autograd
import autograd.numpy as anp
import autograd.scipy.special
import autograd.scipy.stats
import numpy as np
from scipy.special import logsumexp

from ps_vae.nn.likelihoods import Variable
from ps_vae.vae.bounds import Objective
from ps_vae.vae.config import ModelConfig, family_of
from ps_vae.vae.layout import ParameterLayout
from ps_vae.vae.network import Workspace
from ps_vae.vae.objective import ElboSums, objective_gradient

ACTIVATE = {
    "identity": lambda a: a,
    "relu": lambda a: anp.where(a > 0, a, 0.0),
    "sigmoid": lambda a: 1 / (1 + anp.exp(-a)),
    "softplus": lambda a: anp.log(1 + anp.exp(a)),
    "tanh": anp.tanh,
}
COUNTS = ("poisson", "negative-binomial", "multinomial")
BETA = 0.6
PLAIN = Objective(beta=BETA)

VARIABLES = tuple(
    Variable(f"{number} {name}", name, features, misses)
    for number, (name, features, misses) in enumerate(
        [
            *(("gaussian", 1, False), ("gaussian", 1, False), ("bernoulli", 1, True), ("categorical", 3, True)),
            *(("gaussian-feature", 1, True), ("gaussian-feature", 1, False), ("gaussian-feature", 1, False)),
            *(("gaussian-decoder", 1, True), ("poisson", 1, False), ("negative-binomial", 1, True)),
            *(("continuous-bernoulli", 1, True), ("logistic", 1, True), ("categorical", 2, False)),
        ]
    )
)
PARTS = [(0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0)]
"""Of each variable the part of the likelihood that it belongs to, and its first feature there."""


class Problem:
    """A small model at weights where every unit is alive, a batch and its noise."""

    def __init__(
        self, config: ModelConfig, rows: int = 3, dtype: type = np.float64, objective: Objective = PLAIN
    ) -> None:
        self.objective = objective
        generator = np.random.default_rng(11)
        self.layout = ParameterLayout(config)
        self.weights = self.layout.zeros(dtype)
        for view in self.layout.views(self.weights).values():
            view[:] = generator.normal(size=view.shape) / np.sqrt(view.shape[0])
        parts = [(each.likelihood, each.features, each.misses) for each in config.variables]
        parts = parts or [(config.likelihood, config.inputs, False)]
        columns = [_values(generator, rows, *part) for part in parts]
        if config.classes:
            columns.append(np.eye(config.classes)[generator.integers(config.classes, size=rows)])
        self.batch = np.concatenate(columns, axis=1).astype(dtype)
        samples = objective.bound.samples
        self.noise = generator.normal(size=(rows, samples * config.latent)).astype(dtype)
        self.workspace = Workspace(config, rows, dtype, samples, trains=True)

    @property
    def seen(self) -> np.ndarray:
        """What the encoder sees of the batch."""
        if not self.layout.config.variables:
            return self.batch
        seen, features, views = self.batch.copy(), self.layout.config.inputs, self.layout.views(self.weights)
        seen[:, :features] -= views["likelihood.center"]
        seen[:, :features] /= np.exp(views["likelihood.log_scale"])
        return np.nan_to_num(seen, nan=0.0)

    @property
    def labels(self) -> np.ndarray:
        return self.batch[:, self.layout.config.inputs :]

    def gradient(self, weights: np.ndarray) -> tuple[ElboSums, np.ndarray]:
        gradient = self.layout.zeros(weights.dtype)
        sums = objective_gradient(
            self.layout.bind(weights),
            self.batch,
            self.noise,
            objective=self.objective,
            workspace=self.workspace,
            gradient=self.layout.bind(gradient),
        )
        return sums, gradient

    def loss(self, weights: np.ndarray) -> float:
        sums, _ = self.gradient(weights)
        objective, w = self.objective, self.workspace
        if objective.bound.weighs:
            return -logsumexp(w.log_weight.reshape(w.samples, -1) - np.log(w.samples), axis=0).sum()
        if objective.free_bits:
            posterior = w.encoder[-1][: w.rows]
            mean, v = posterior[:, : self.layout.config.latent], posterior[:, self.layout.config.latent :]
            kl = np.maximum(objective.free_bits, 0.5 * (mean**2 + np.exp(v) - 1 - v)).sum()
        elif objective.capacity:
            kl = np.abs(w.kl - objective.capacity).sum()
        else:
            kl = sums.kl
        return objective.beta * kl - sums.log_likelihood

    def slopes(self, skip: Collection[str] = ()) -> np.ndarray:
        """Of the loss, by central differences; zero for the tensors whose names begin with one of these."""
        step = 1e-5
        slopes = np.zeros_like(self.weights)
        for tensor in self.layout:
            if tensor.name.startswith((*facts_of(self.layout.config), *skip)):
                continue
            for index in range(tensor.offset, tensor.offset + int(np.prod(tensor.shape))):
                moved = self.weights.copy()
                moved[index] += step
                above = self.loss(moved)
                moved[index] -= 2 * step
                slopes[index] = (above - self.loss(moved)) / (2 * step)
        return slopes

    def check(self, gradient: np.ndarray, slopes: np.ndarray) -> None:
        error = np.linalg.norm(gradient - slopes) / np.linalg.norm(slopes)
        worst = self.layout.tensor_at(int(np.abs(gradient - slopes).argmax()))
        assert error <= 1e-6, f"relative error {error:.1e}, largest in {worst}"


def _values(generator: np.random.Generator, rows: int, likelihood: str, features: int, misses: bool) -> np.ndarray:
    """Such as the likelihood takes; in some rows, but not in all, and not in none, NaN where they may miss."""
    values = generator.random((rows, features))
    if likelihood in COUNTS:
        values = generator.poisson(3 * values).astype(float)
    elif likelihood == "categorical":
        values = np.eye(features)[generator.integers(features, size=rows)]
    elif likelihood == "logistic":
        values = np.round(255 * values) / 255
    if misses:
        missing = generator.random(rows) < 0.5
        missing[generator.permutation(rows)[:2]] = [True, False]
        values[missing] = np.nan
    return values


def _independent_log_density_of_variables(config: ModelConfig, a, weights: dict, x: np.ndarray):
    """One variable after the other; a column for each."""
    center, scale = weights["likelihood.center"], anp.exp(weights["likelihood.log_scale"])
    densities, feature, output = [], 0, 0
    for variable, (part, place) in zip(config.variables, PARTS, strict=True):
        features = slice(feature, feature + variable.features)
        outputs = variable.features * (2 if variable.likelihood == "gaussian-decoder" else 1)
        values, is_there = x[:, features], ~np.isnan(x[:, features]).any(axis=1)
        values = np.where(np.isnan(values), 1.0, values)
        is_gaussian = variable.likelihood.startswith("gaussian")
        if is_gaussian:
            values = (values - center[features]) / scale[features]
        own = {
            "likelihood." + name.removeprefix(f"likelihood.{part}."): array[place : place + variable.features]
            for name, array in weights.items()
            if name.startswith(f"likelihood.{part}.")
        }
        alone = ModelConfig(variable.features, likelihood=variable.likelihood, sigma=config.sigma)
        density = _independent_log_density(alone, a[:, output : output + outputs], own, values)
        if is_gaussian:
            density = density - anp.log(scale[features])
        densities.append(anp.where(is_there[:, None], density, 0.0))
        feature, output = feature + variable.features, output + outputs
    return anp.concatenate(densities, axis=1)


def _independent_log_density(config: ModelConfig, a, weights: dict, x: np.ndarray):
    if config.variables:
        return _independent_log_density_of_variables(config, a, weights, x)
    if config.likelihood == "bernoulli":
        p = 1 / (1 + anp.exp(-a))
        return x * anp.log(p) + (1 - x) * anp.log(1 - p)
    if config.likelihood == "continuous-bernoulli":
        # Of the paper's equation 4, with lambda for p.
        p = 1 / (1 + anp.exp(-a))
        normaliser = anp.log(2 * anp.arctanh(1 - 2 * p) / (1 - 2 * p))
        return x * anp.log(p) + (1 - x) * anp.log(1 - p) + normaliser
    if config.likelihood == "poisson":
        return autograd.scipy.stats.poisson.logpmf(x, anp.exp(a - anp.log(1 + anp.exp(a - 26))))
    if config.likelihood == "negative-binomial":
        mean = anp.exp(a - anp.log(1 + anp.exp(a - 26)))
        u = weights["likelihood.log_dispersion"]
        r = anp.exp(u + anp.log(1 + anp.exp(-12 - u)) - anp.log(1 + anp.exp(u - 12)))
        gammas = [autograd.scipy.special.gammaln(part) for part in (x + r, r, x + 1)]
        return gammas[0] - gammas[1] - gammas[2] + r * anp.log(r / (r + mean)) + x * anp.log(mean / (r + mean))
    if config.likelihood in ("categorical", "multinomial"):
        # Each column's part, and an equal share of what belongs to the row.
        log_pi = a - anp.log(anp.sum(anp.exp(a), axis=1, keepdims=True))
        ways = autograd.scipy.special.gammaln(anp.sum(x, axis=1, keepdims=True) + 1) / config.inputs
        return x * log_pi + ways - autograd.scipy.special.gammaln(x + 1)
    if config.likelihood == "logistic":
        u = weights["likelihood.log_scale"]
        s = anp.exp(u + anp.log(1 + anp.exp(-10 - u)) - anp.log(1 + anp.exp(u - 2)))
        upper, lower = (1 / (1 + anp.exp(-(x + way - a) / s)) for way in (0.5 / 255, -0.5 / 255))
        upper, lower = anp.where(x > 1 - 1e-6, 1.0, upper), anp.where(x < 1e-6, 0.0, lower)
        return anp.log(upper - lower)
    if config.likelihood == "gaussian":
        return autograd.scipy.stats.norm.logpdf(x, a, config.sigma)
    floor = weights["likelihood.floor"]
    if config.likelihood == "gaussian-decoder":
        a, u = a[:, : config.inputs], a[:, config.inputs :]
        v = u + anp.log(1 + anp.exp(floor - u)) - anp.log(1 + anp.exp(u - floor - 24))
    else:
        u = weights["likelihood.log_variance"]
        v = u + anp.log(1 + anp.exp(floor - u))
    return autograd.scipy.stats.norm.logpdf(x, a, anp.sqrt(anp.exp(v)))


def facts_of(config: ModelConfig) -> set[str]:
    """Tensors that nobody learns."""
    return {f"likelihood.{name}" for name, _ in family_of(config).facts}


def _independent_posterior(weights: dict, x, config: ModelConfig):
    h = x
    for k in range(len(config.hidden)):
        h = ACTIVATE[config.activation](h @ weights[f"encoder.{k}.weight"] + weights[f"encoder.{k}.bias"])
    u = h @ weights["posterior.weight"] + weights["posterior.bias"]
    return u[:, : config.latent], _bounded(u[:, config.latent :])


def _bounded(u):
    return u + anp.log(1 + anp.exp(-20 - u)) - anp.log(1 + anp.exp(u - 10))


def _independent_log_prior(weights: dict, u, config: ModelConfig):
    if config.prior in ("normal", "uniform"):
        return anp.sum(autograd.scipy.stats.norm.logpdf(u), axis=1)
    if config.prior.startswith("vamp"):
        pseudo_inputs = weights["prior.pseudo_inputs"]
        means, v = _independent_posterior(weights, pseudo_inputs, config)
        shares = anp.ones(len(pseudo_inputs)) / len(pseudo_inputs)
    else:
        components = weights["prior.components"]
        means, v = components[:, : config.latent], _bounded(components[:, config.latent :])
        shares = anp.exp(weights["prior.logits"]) / anp.sum(anp.exp(weights["prior.logits"]))
    densities = autograd.scipy.stats.norm.pdf(u[:, None, :], means[None], anp.sqrt(anp.exp(v))[None])
    return anp.log(anp.sum(shares * anp.prod(densities, axis=2), axis=1))


def _independent_terms(path: dict, density: dict, rest: dict, problem: Problem):
    """log p(x|z), log p(u), log q(u|x), each (rows, samples), as the textbook writes them, for HIPS autograd.

    The weights of the way from the noise to u, of the density q at a given u, and of all else.
    """
    config, x = problem.layout.config, problem.batch[:, : problem.layout.config.inputs]
    mean, v = _independent_posterior(path, problem.seen, config)
    at_mean, at_v = _independent_posterior(density, problem.seen, config)
    columns = []
    for k in range(problem.objective.bound.samples):
        u = mean + anp.sqrt(anp.exp(v)) * problem.noise[:, k * config.latent : (k + 1) * config.latent]
        h = autograd.scipy.stats.norm.cdf(u) if config.prior == "uniform" else u
        h = anp.concatenate([h, problem.labels], axis=1)
        for layer in range(len(config.hidden)):
            h = ACTIVATE[config.activation](h @ rest[f"decoder.{layer}.weight"] + rest[f"decoder.{layer}.bias"])
        a = h @ rest["likelihood.weight"] + rest["likelihood.bias"]
        columns.append(
            (
                anp.sum(_independent_log_density(config, a, rest, x), axis=1),
                _independent_log_prior(rest, u, config),
                anp.sum(autograd.scipy.stats.norm.logpdf(u, at_mean, anp.sqrt(anp.exp(at_v))), axis=1),
            )
        )
    return [anp.stack(column, axis=1) for column in zip(*columns, strict=True)]


def _independent_kl(weights: dict, problem: Problem):
    """In closed form where the prior is that of the textbook, else with the posterior's entropy in closed form."""
    mean, v = _independent_posterior(weights, problem.seen, problem.layout.config)
    if problem.layout.config.prior in ("normal", "uniform"):
        return -0.5 * anp.sum(1 + v - mean**2 - anp.exp(v))
    _, log_prior, _ = _independent_terms(weights, weights, weights, problem)
    return -anp.sum(anp.mean(log_prior, axis=1)) - 0.5 * anp.sum(1 + v + np.log(2 * np.pi))


def _independent_loss(now: dict, held: dict, problem: Problem):
    """What is minimised, as a function of `now`; what the path derivative does not differentiate is at `held`."""
    objective = problem.objective
    bound, beta = objective.bound, objective.beta

    def log_weights(*weights: dict):
        log_likelihood, log_prior, log_posterior = _independent_terms(*weights, problem)
        return log_likelihood + beta * (log_prior - log_posterior)

    if not bound.weighs and not bound.is_path:
        log_likelihood, _, _ = _independent_terms(now, now, now, problem)
        return beta * _independent_kl(now, problem) - anp.sum(anp.mean(log_likelihood, axis=1))
    if not bound.is_path:
        return -anp.sum(anp.log(anp.mean(anp.exp(log_weights(now, now, now)), axis=1)))
    weights = np.exp(log_weights(held, held, held)) if bound.weighs else np.ones((len(problem.batch), bound.samples))
    weights /= weights.sum(axis=1, keepdims=True)
    scale = 1 - beta + beta * weights if bound.weighs else 1.0
    of_path = anp.sum(scale * weights * log_weights(now, held, held))
    return -of_path - anp.sum(weights * log_weights(held, held, now))


def check_twin(problem: Problem) -> None:
    sums, gradient = problem.gradient(problem.weights)
    views = {name: view.copy() for name, view in problem.layout.views(problem.weights).items()}
    log_likelihood, _, _ = _independent_terms(views, views, views, problem)
    expected_sums = log_likelihood.mean(axis=1).sum(), _independent_kl(views, problem)
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-12)
    expected = autograd.grad(lambda now: _independent_loss(now, views, problem))(views)
    for name, view in problem.layout.views(gradient).items():
        exact = np.zeros_like(view) if name in facts_of(problem.layout.config) else expected[name]
        # Sums of large numbers that nearly cancel are right to a part of these, not of themselves.
        atol = 1e-11 + 1e-10 * float(np.abs(exact).max())
        np.testing.assert_allclose(view, exact, rtol=1e-9, atol=atol, err_msg=name)
