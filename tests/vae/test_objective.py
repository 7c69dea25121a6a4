"""Bounds and their gradients: against central differences, an independent model, and themselves elsewhere in memory."""

import tracemalloc

import numpy as np
import pytest
from twin import BETA, PLAIN, VARIABLES, Problem, check_twin

from ps_vae.errors import UsageError
from ps_vae.nn.activations import ACTIVATIONS
from ps_vae.nn.likelihoods import LIKELIHOODS
from ps_vae.vae.bounds import Objective, bound
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout
from ps_vae.vae.network import Workspace, factors_of_layers
from ps_vae.vae.objective import objective_gradient

DEPTHS = [(), (4,), (4, 3), (5, 4, 3)]
PRIORS = ("normal", "uniform", "mixture:3", "vamp:3")
BOUNDS = ("elbo", "elbo:2", "iwae:3", "stl", "stl:2", "dreg:3")
MIXED = {"variables": VARIABLES, "likelihood": "a table's"}


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
    check_twin(Problem(ModelConfig(5, hidden, 2, activation, likelihood, sigma=0.8)))


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
    check_twin(Problem(config, objective=Objective(bound(name), BETA)))


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("more", [MIXED, {"classes": 3}, {**MIXED, "classes": 2}], ids=["mixed", "labels", "both"])
def test_tables_with_gaps_and_labels_match_central_differences_and_an_independent_model(
    more: dict, prior: str, name: str
) -> None:
    inputs = sum(variable.features for variable in more.get("variables", ())) or 5
    config = ModelConfig(inputs, (4,), 2, "tanh", sigma=0.8, prior=prior, **more)
    problem = Problem(config, rows=5, objective=Objective(bound(name), BETA))
    _, gradient = problem.gradient(problem.weights)
    skip = ("encoder", "posterior") if problem.objective.bound.is_path else ()
    for tensor in problem.layout:
        if tensor.name.startswith(skip or "none"):
            problem.layout.views(gradient)[tensor.name][:] = 0
    problem.check(gradient, problem.slopes(skip))
    check_twin(problem)


@pytest.mark.parametrize("prior", ["vamp:4", "mixture:2"])
@pytest.mark.parametrize("hidden", DEPTHS, ids=len)
def test_pseudo_inputs_learn_through_encoders_of_any_depth(hidden: tuple[int, ...], prior: str) -> None:
    check_twin(Problem(ModelConfig(5, hidden, 2, "tanh", prior=prior)))


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


def test_a_divergence_from_a_mixture_far_from_zero_loses_no_nats_in_float32() -> None:
    """Of a posterior that is the prior's only component it is zero, up to the noise of its samples."""
    config, rows = ModelConfig(5, (4,), 20, prior="mixture:1"), 3
    noise = np.random.default_rng(0).normal(size=(rows, 20))
    divergences = []
    for dtype in (np.float32, np.float64):
        layout = ParameterLayout(config)
        weights, gradient = layout.zeros(dtype), layout.zeros(dtype)
        views = layout.views(weights)
        views["posterior.bias"][:20] = 3000
        views["prior.components"][0, :20] = 3000
        sums = objective_gradient(
            layout.bind(weights),
            np.zeros((rows, 5), dtype),
            noise.astype(dtype),
            objective=Objective(),
            workspace=Workspace(config, rows, dtype, trains=True),
            gradient=layout.bind(gradient),
        )
        divergences.append(sums.kl)
    expected = 0.5 * (np.square(noise) - 1).sum()
    assert divergences[1] == pytest.approx(expected, abs=1e-4)
    assert divergences[0] == pytest.approx(expected, abs=0.05)


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
