"""Bounds and their gradients: against central differences, an independent model, and themselves elsewhere in memory."""

import tracemalloc
from collections.abc import Collection

import autograd
import autograd.numpy as anp
import autograd.scipy.special
import autograd.scipy.stats
import numpy as np
import pytest
from scipy.special import logsumexp

from ps_vae.errors import UsageError
from ps_vae.nn.activations import ACTIVATIONS
from ps_vae.nn.likelihoods import LIKELIHOODS
from ps_vae.vae.bounds import Objective, bound
from ps_vae.vae.config import ModelConfig, family_of
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout
from ps_vae.vae.network import Workspace, factors_of_layers
from ps_vae.vae.objective import ElboSums, objective_gradient

ACTIVATE = {
    "identity": lambda a: a,
    "relu": lambda a: anp.where(a > 0, a, 0.0),
    "sigmoid": lambda a: 1 / (1 + anp.exp(-a)),
    "softplus": lambda a: anp.log(1 + anp.exp(a)),
    "tanh": anp.tanh,
}
COUNTS = ("poisson", "negative-binomial", "multinomial")
DEPTHS = [(), (4,), (4, 3), (5, 4, 3)]
BETA = 0.6
PLAIN = Objective(beta=BETA)
PRIORS = ("normal", "uniform", "mixture:3", "vamp:3")
BOUNDS = ("elbo", "elbo:2", "iwae:3", "stl", "stl:2", "dreg:3")


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
        batch = generator.random((rows, config.inputs))
        if config.likelihood in COUNTS:
            batch = generator.poisson(3 * batch)
        elif config.likelihood == "categorical":
            batch = np.eye(config.inputs)[generator.integers(config.inputs, size=rows)]
        elif config.likelihood == "logistic":
            batch = np.round(255 * batch) / 255
        self.batch = batch.astype(dtype)
        samples = objective.bound.samples
        self.noise = generator.normal(size=(rows, samples * config.latent)).astype(dtype)
        self.workspace = Workspace(config, rows, dtype, samples, trains=True)

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
            if tensor.name.startswith((*_facts(self.layout.config), *skip)):
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


def _independent_log_density(config: ModelConfig, a, weights: dict, x: np.ndarray):
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


def _facts(config: ModelConfig) -> set[str]:
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
    config, batch = problem.layout.config, problem.batch
    mean, v = _independent_posterior(path, batch, config)
    at_mean, at_v = _independent_posterior(density, batch, config)
    columns = []
    for k in range(problem.objective.bound.samples):
        u = mean + anp.sqrt(anp.exp(v)) * problem.noise[:, k * config.latent : (k + 1) * config.latent]
        h = autograd.scipy.stats.norm.cdf(u) if config.prior == "uniform" else u
        for layer in range(len(config.hidden)):
            h = ACTIVATE[config.activation](h @ rest[f"decoder.{layer}.weight"] + rest[f"decoder.{layer}.bias"])
        a = h @ rest["likelihood.weight"] + rest["likelihood.bias"]
        columns.append(
            (
                anp.sum(_independent_log_density(config, a, rest, batch), axis=1),
                _independent_log_prior(rest, u, config),
                anp.sum(autograd.scipy.stats.norm.logpdf(u, at_mean, anp.sqrt(anp.exp(at_v))), axis=1),
            )
        )
    return [anp.stack(column, axis=1) for column in zip(*columns, strict=True)]


def _independent_kl(weights: dict, problem: Problem):
    """In closed form where the prior is that of the textbook, else with the posterior's entropy in closed form."""
    mean, v = _independent_posterior(weights, problem.batch, problem.layout.config)
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


def _check_twin(problem: Problem) -> None:
    sums, gradient = problem.gradient(problem.weights)
    views = {name: view.copy() for name, view in problem.layout.views(problem.weights).items()}
    log_likelihood, _, _ = _independent_terms(views, views, views, problem)
    expected_sums = log_likelihood.mean(axis=1).sum(), _independent_kl(views, problem)
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-12)
    expected = autograd.grad(lambda now: _independent_loss(now, views, problem))(views)
    for name, view in problem.layout.views(gradient).items():
        exact = np.zeros_like(view) if name in _facts(problem.layout.config) else expected[name]
        # Sums of large numbers that nearly cancel are right to a part of these, not of themselves.
        atol = 1e-11 + 1e-10 * float(np.abs(exact).max())
        np.testing.assert_allclose(view, exact, rtol=1e-9, atol=atol, err_msg=name)


@pytest.mark.parametrize("hidden", DEPTHS, ids=len)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradient_matches_central_differences(likelihood: str, activation: str, hidden: tuple[int, ...]) -> None:
    problem = Problem(ModelConfig(5, hidden, 2, activation, likelihood, sigma=0.8))
    problem.check(problem.gradient(problem.weights)[1], problem.slopes())


@pytest.mark.parametrize("hidden", DEPTHS, ids=len)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_elbo_and_gradient_are_those_of_an_independent_model(
    likelihood: str, activation: str, hidden: tuple[int, ...]
) -> None:
    _check_twin(Problem(ModelConfig(5, hidden, 2, activation, likelihood, sigma=0.8)))


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradient_of_every_bound_with_every_prior_matches_central_differences(
    likelihood: str, prior: str, name: str
) -> None:
    """The path derivative is no derivative of the value: there the encoder's part is left to the independent model."""
    config = ModelConfig(5, (4,), 2, "tanh", likelihood, sigma=0.8, prior=prior)
    problem = Problem(config, objective=Objective(bound(name), BETA))
    _, gradient = problem.gradient(problem.weights)
    skip = ("encoder", "posterior") if problem.objective.bound.is_path else ()
    for tensor in problem.layout:
        if tensor.name.startswith(skip or "none"):
            problem.layout.views(gradient)[tensor.name][:] = 0
    problem.check(gradient, problem.slopes(skip))


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_bound_with_every_prior_is_that_of_an_independent_model(likelihood: str, prior: str, name: str) -> None:
    config = ModelConfig(5, (4,), 2, "tanh", likelihood, sigma=0.8, prior=prior)
    _check_twin(Problem(config, objective=Objective(bound(name), BETA)))


@pytest.mark.parametrize("prior", ["vamp:4", "mixture:2"])
@pytest.mark.parametrize("hidden", DEPTHS, ids=len)
def test_pseudo_inputs_learn_through_encoders_of_any_depth(hidden: tuple[int, ...], prior: str) -> None:
    _check_twin(Problem(ModelConfig(5, hidden, 2, "tanh", prior=prior)))


@pytest.mark.parametrize("penalty", [{"free_bits": 0.4}, {"capacity": 1.5}])
@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_free_bits_and_capacity_are_slopes_of_their_penalty(penalty: dict, prior: str) -> None:
    problem = Problem(ModelConfig(5, (4,), 3, "tanh", prior=prior), rows=8, objective=Objective(beta=BETA, **penalty))
    _, gradient = problem.gradient(problem.weights)
    plain = Problem(ModelConfig(5, (4,), 3, "tanh", prior=prior), rows=8).gradient(problem.weights)[1]
    assert not np.allclose(gradient, plain)
    problem.check(gradient, problem.slopes())


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradient_reaches_through_the_bound_of_the_log_variance(likelihood: str) -> None:
    problem = Problem(ModelConfig(5, (4,), 2, "tanh", likelihood))
    problem.layout.views(problem.weights)["posterior.bias"][2:] = [-18, 9]
    _, gradient = problem.gradient(problem.weights)
    slope = problem.layout.views(gradient)["posterior.bias"]
    step, first = 1e-5, problem.layout.tensors[3].offset
    for column in (2, 3):
        up, down = problem.weights.copy(), problem.weights.copy()
        up[first + column] += step
        down[first + column] -= step
        assert slope[column] == pytest.approx((problem.loss(up) - problem.loss(down)) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_float32_agrees_with_float64(likelihood: str, activation: str) -> None:
    config = ModelConfig(60, (40, 30), 7, activation, likelihood)
    single, double = Problem(config, rows=16, dtype=np.float32), Problem(config, rows=16)
    double.weights[:], double.batch, double.noise = (
        single.weights,
        single.batch.astype(float),
        single.noise.astype(float),
    )
    (sums, gradient), (exact_sums, exact) = single.gradient(single.weights), double.gradient(double.weights)
    np.testing.assert_allclose(sums, exact_sums, rtol=1e-5)
    assert np.linalg.norm(gradient - exact) <= 1e-5 * np.linalg.norm(exact)


def test_rows_add_up_and_beta_is_not_in_the_sums() -> None:
    problem = Problem(ModelConfig(5, (4,), 2), rows=4)
    sums, whole = problem.gradient(problem.weights)
    assert sums.log_likelihood == pytest.approx(problem.workspace.log_likelihood.sum(), rel=1e-12)
    assert sums.kl == pytest.approx(problem.workspace.kl.sum(), rel=1e-12)
    workspace, parts = Workspace(problem.layout.config, 1, np.float64, trains=True), []
    for row in range(4):
        part = problem.layout.zeros(np.float64)
        objective_gradient(
            problem.layout.bind(problem.weights),
            problem.batch[row : row + 1],
            problem.noise[row : row + 1],
            objective=PLAIN,
            workspace=workspace,
            gradient=problem.layout.bind(part),
        )
        parts.append(part)
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-10, atol=1e-12)


def test_padding_of_the_gradient_is_not_touched() -> None:
    problem = Problem(ModelConfig(5, (3,), 2))
    _, gradient = problem.gradient(problem.weights)
    for view in problem.layout.views(gradient).values():
        view[:] = 0
    assert not gradient.any()


def test_same_bits_wherever_the_arrays_lie() -> None:
    config = ModelConfig(98, (50,), 10)
    problem = Problem(config, rows=32, dtype=np.float32)
    _, first = problem.gradient(problem.weights)

    def moved(array: np.ndarray, elements: int) -> np.ndarray:
        memory = np.zeros(array.size + 16 + elements, array.dtype)
        copy = memory[elements : elements + array.size].reshape(array.shape)
        copy[...] = array
        return copy

    for elements in (1, 2, 5, 8):
        gradient = moved(problem.layout.zeros(), elements)
        objective_gradient(
            problem.layout.bind(moved(problem.weights, elements)),
            moved(problem.batch, elements),
            moved(problem.noise, elements),
            objective=PLAIN,
            workspace=Workspace(config, 32, trains=True),
            gradient=problem.layout.bind(gradient),
        )
        np.testing.assert_array_equal(gradient, first)


def test_nothing_of_an_earlier_pass_is_left_in_a_later_one() -> None:
    problem = Problem(ModelConfig(5, (4,), 2), dtype=np.float32)
    gradient = problem.layout.zeros()
    bound = problem.layout.bind(gradient), problem.layout.bind(problem.weights)
    _, expected = problem.gradient(problem.weights)
    for batch in (np.full_like(problem.batch, np.nan), problem.batch):
        objective_gradient(
            bound[1],
            batch,
            problem.noise,
            objective=PLAIN,
            workspace=problem.workspace,
            gradient=bound[0],
        )
    np.testing.assert_array_equal(gradient, expected)


def test_nan_in_one_example_is_seen_in_the_sums_and_the_gradient() -> None:
    problem = Problem(ModelConfig(5, (4,), 2), dtype=np.float32)
    problem.batch[1, 3] = np.nan
    sums, gradient = problem.gradient(problem.weights)
    assert np.isnan(sums).all()
    assert np.isnan(problem.layout.views(gradient)["likelihood.weight"]).all()
    np.testing.assert_array_equal(np.isnan(problem.workspace.log_likelihood), [False, True, False])


def test_no_array_is_allocated() -> None:
    config = ModelConfig(64, (48,), 16)
    layout = ParameterLayout(config)
    weights, gradient = layout.bind(initial_weights(layout, 1)), layout.bind(layout.zeros())
    workspace = Workspace(config, 64, trains=True)

    def step() -> None:
        objective_gradient(
            weights, workspace.batch, workspace.noise, objective=Objective(), workspace=workspace, gradient=gradient
        )

    step()
    tracemalloc.start()
    step()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    smallest_array = 64 * 16 * 4
    assert peak - before < smallest_array


@pytest.mark.parametrize("wrong", ["batch", "noise"])
def test_arrays_of_another_shape_or_dtype_are_refused(wrong: str) -> None:
    problem = Problem(ModelConfig(5, (4,), 2), dtype=np.float32)
    for change in (lambda array: array[:2], lambda array: array.astype(np.float64)):
        given = {"batch": problem.batch, "noise": problem.noise}
        given[wrong] = change(given[wrong])
        bound = problem.layout.bind(problem.weights)
        with pytest.raises(UsageError, match=f"{wrong} is"):
            objective_gradient(bound, **given, objective=Objective(), workspace=problem.workspace, gradient=bound)


def test_weights_whose_gradient_is_left_out_are_the_product_of_inputs_and_output_gradients() -> None:
    problem = Problem(ModelConfig(inputs=6, hidden=(5, 4), latent=2))
    sums, whole = problem.gradient(problem.weights)
    gradient = np.full_like(whole, 12.5)
    problem.workspace.batch[:] = problem.batch

    same = objective_gradient(
        problem.layout.bind(problem.weights),
        problem.workspace.batch,
        problem.noise,
        objective=PLAIN,
        workspace=problem.workspace,
        gradient=problem.layout.bind(gradient),
        without=[0, 2, 3, 5],
    )

    assert same == sums
    layers = [name.removesuffix(".weight") for name in problem.layout.views(whole) if name.endswith(".weight")]
    left_out = {f"{layers[layer]}.weight" for layer in (0, 2, 3, 5)}
    assert left_out == {"encoder.0.weight", "posterior.weight", "decoder.0.weight", "likelihood.weight"}
    for name, expected in problem.layout.views(whole).items():
        got = problem.layout.views(gradient)[name]
        np.testing.assert_array_equal(got, np.full_like(expected, 12.5) if name in left_out else expected, name)
    for layer, (inputs, d_outputs) in zip(layers, factors_of_layers(problem.workspace), strict=True):
        expected = problem.layout.views(whole)[f"{layer}.weight"]
        np.testing.assert_allclose(np.einsum("ri,ro->io", inputs, d_outputs), expected, rtol=1e-12, atol=1e-14)
