"""Every update rule against the papers' equations, and the promises all of them keep."""

import math
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.errors import DataError, UsageError
from ps_vae.optim.table import OPTIMIZERS, optimizer

Array = np.ndarray
Twin = Callable[[Array, list[Array], list[float]], tuple[Array, dict[str, Array]]]


# The twins: straight from the papers, in float64, with the mean gradients and rates of all steps as a list.


def sgd_twin(w: Array, gradients: list[Array], rates: list[float]) -> tuple[Array, dict[str, Array]]:
    for g, rate in zip(gradients, rates, strict=True):
        w = w - rate * g
    return w, {}


def momentum_twin(w: Array, gradients: list[Array], rates: list[float]) -> tuple[Array, dict[str, Array]]:
    for t, rate in enumerate(rates):
        velocity = sum(0.9 ** (t - i) * gradients[i] for i in range(t + 1))
        w = w - rate * velocity
    return w, {"velocity": velocity}


def nesterov_twin(w: Array, gradients: list[Array], rates: list[float]) -> tuple[Array, dict[str, Array]]:
    for t, rate in enumerate(rates):
        velocity = sum(0.9 ** (t - i) * gradients[i] for i in range(t + 1))
        w = w - rate * (gradients[t] + 0.9 * velocity)
    return w, {"velocity": velocity}


def adam_twin(w: Array, gradients: list[Array], rates: list[float]) -> tuple[Array, dict[str, Array]]:
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g**2
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w, {"first_moment": m, "second_moment": v}


def adagrad_twin(w: Array, gradients: list[Array], rates: list[float]) -> tuple[Array, dict[str, Array]]:
    for t, rate in enumerate(rates):
        total = sum(g**2 for g in gradients[: t + 1])
        w = w - rate * gradients[t] / (np.sqrt(total) + 1e-10)
    return w, {"sum_of_squares": total}


def rmsprop_twin(w: Array, gradients: list[Array], rates: list[float]) -> tuple[Array, dict[str, Array]]:
    for t, rate in enumerate(rates):
        mean = sum((1 - 0.99) * 0.99 ** (t - i) * gradients[i] ** 2 for i in range(t + 1))
        w = w - rate * gradients[t] / (np.sqrt(mean) + 1e-8)
    return w, {"mean_square": mean}


TWINS: dict[str, Twin] = {
    "sgd": sgd_twin,
    "momentum": momentum_twin,
    "nesterov": nesterov_twin,
    "adam": adam_twin,
    "adagrad": adagrad_twin,
    "rmsprop": rmsprop_twin,
}

every_rule = pytest.mark.parametrize("name", list(OPTIMIZERS))


def test_every_optimizer_has_a_twin() -> None:
    assert list(OPTIMIZERS) == list(TWINS)


@every_rule
@settings(deadline=None, max_examples=15)
@given(size=st.integers(1, 200), steps=st.integers(1, 40), batch=st.integers(1, 512), seed=st.integers(0, 2**32 - 1))
def test_rule_follows_the_equations_of_its_paper(name: str, size: int, steps: int, batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(size).astype(np.float32)
    sums = [(batch * rng.standard_normal(size)).astype(np.float32) for _ in range(steps)]
    rates = [0.01 / (1 + 0.1 * step) for step in range(steps)]

    got, state = run(name, weights, sums, rates, scale=1 / batch)

    expected, expected_state = TWINS[name](
        weights.astype(np.float64), [s.astype(np.float64) / batch for s in sums], rates
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert sorted(state) == sorted(expected_state)
    for key, value in expected_state.items():
        np.testing.assert_allclose(state[key], value, rtol=1e-5, atol=1e-5)


# One step in NumPy's float32, every operation rounded in the order of the docstrings: (w, g, rate, *state) -> w.
F = np.float32
STEPS_IN_FLOAT32: dict[str, Callable[..., Array]] = {
    "sgd": lambda w, g, rate: w - rate * g,
    "momentum": lambda w, g, rate, u: w - rate * (F(0.9) * u + g),
    "nesterov": lambda w, g, rate, u: w - rate * (g + F(0.9) * (F(0.9) * u + g)),
    "adam": lambda w, g, rate, m, v: (
        w
        - (F(rate / (1 - 0.9**3)) * (F(0.9) * m + F(1 - 0.9) * g))
        / (np.sqrt(F(0.999) * v + F(1 - 0.999) * (g * g)) * F(1 / math.sqrt(1 - 0.999**3)) + F(1e-8))
    ),
    "adagrad": lambda w, g, rate, s: w - rate * g / (np.sqrt(s + g * g) + F(1e-10)),
    "rmsprop": lambda w, g, rate, v: w - rate * g / (np.sqrt(F(0.99) * v + F(1 - 0.99) * (g * g)) + F(1e-8)),
}


@every_rule
def test_arithmetic_is_float32_bit_for_bit_and_nothing_is_contracted_or_promoted(name: str) -> None:
    rng = np.random.default_rng(4)
    rule = OPTIMIZERS[name]
    weights, gradient = rng.standard_normal((2, 5000)).astype(np.float32)
    state = {key: rng.uniform(0.1, 1.0, 5000).astype(np.float32) for key in rule.state_names}
    rate = 0.0625 if name == "adam" else np.float32(0.1)
    expected = STEPS_IN_FLOAT32[name](weights, gradient * F(1 / 96), rate, *(state[k].copy() for k in rule.state_names))

    out = np.empty_like(weights)
    rule.update(weights, gradient, 1 / 96, state, float(rate), 2, out)

    assert expected.dtype == np.float32
    np.testing.assert_array_equal(out, expected)


def test_one_sgd_step_at_rate_one_subtracts_the_gradient() -> None:
    weights, gradient = np.float32([3, -2, 0.5]), np.float32([1, 0.25, -8])

    got, _ = run("sgd", weights, [gradient], [1.0], scale=1.0)

    assert got.tolist() == [2.0, -2.25, 8.5]


def test_momentum_reaches_ten_times_the_rate_under_a_constant_gradient() -> None:
    got, state = run("momentum", np.zeros(1, np.float32), [np.ones(1, np.float32)] * 400, [0.0] * 400, scale=1.0)

    assert got == 0.0
    np.testing.assert_allclose(state["velocity"], 10.0, rtol=1e-5)


@pytest.mark.parametrize("magnitude", [1e-5, 1.0, 1e6])
def test_adam_moves_by_the_rate_whatever_the_gradients_magnitude(magnitude: float) -> None:
    gradient = np.float32([magnitude, -magnitude])

    got, _ = run("adam", np.zeros(2, np.float32), [gradient] * 50, [0.01] * 50, scale=1.0)

    # eps = 1e-8 shortens a step by 1e-8 / magnitude
    np.testing.assert_allclose(got, 0.5 * np.array([-1, 1]) / (1 + 1e-8 / magnitude), rtol=1e-5)


def test_adagrad_under_a_constant_gradient_falls_like_the_harmonic_roots() -> None:
    got, _ = run("adagrad", np.zeros(1, np.float32), [np.full(1, 7, np.float32)] * 100, [0.1] * 100, scale=1.0)

    np.testing.assert_allclose(got, -0.1 * sum(1 / math.sqrt(t) for t in range(1, 101)), rtol=1e-5)


def test_first_step_of_rmsprop_is_ten_times_the_rate() -> None:
    got, _ = run("rmsprop", np.zeros(1, np.float32), [np.ones(1, np.float32)], [0.01], scale=1.0)

    np.testing.assert_allclose(got, -0.1, rtol=1e-6)


@every_rule
@settings(deadline=None, max_examples=15)
@given(size=st.integers(1, 300), cuts=st.lists(st.integers(0, 300), max_size=4), seed=st.integers(0, 2**32 - 1))
def test_slicing_the_vector_anywhere_gives_the_same_bits(name: str, size: int, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(size).astype(np.float32)
    sums = [(10.0 ** rng.uniform(-20, 3, size) * rng.standard_normal(size)).astype(np.float32) for _ in range(4)]
    bounds = [0, *sorted(min(cut, size) for cut in cuts), size]

    whole, whole_state = run(name, weights, sums, [1e-3] * 4, scale=1 / 96)
    parts = [run(name, weights[a:b], [s[a:b] for s in sums], [1e-3] * 4, scale=1 / 96) for a, b in pairwise(bounds)]

    assert np.concatenate([part for part, _ in parts]).tobytes() == whole.tobytes()
    for key, value in whole_state.items():
        assert np.concatenate([state[key] for _, state in parts]).tobytes() == value.tobytes()


@every_rule
def test_updating_in_place_gives_the_same_bits(name: str) -> None:
    rng = np.random.default_rng(5)
    weights, gradient = rng.standard_normal((2, 1000)).astype(np.float32)
    expected, _ = run(name, weights, [gradient], [1e-2], scale=0.1)

    rule = OPTIMIZERS[name]
    rule.update(weights, gradient, 0.1, rule.initial_state(1000), 1e-2, 0, weights)

    assert weights.tobytes() == expected.tobytes()


@every_rule
def test_published_weights_and_the_gradient_are_not_written_to(name: str) -> None:
    weights, gradient = np.random.default_rng(6).standard_normal((2, 100)).astype(np.float32)
    before = weights.tobytes(), gradient.tobytes()

    got, _ = run(name, weights, [gradient] * 3, [0.1] * 3, scale=1.0)

    assert (weights.tobytes(), gradient.tobytes()) == before
    assert (got != weights).all()


@every_rule
def test_padding_zeros_stay_zero(name: str) -> None:
    rng = np.random.default_rng(7)
    weights, gradient = rng.standard_normal((2, 64)).astype(np.float32)
    weights[50:] = 0.0
    gradient[50:] = 0.0

    got, state = run(name, weights, [gradient] * 20, [0.1] * 20, scale=1 / 64)

    for vector in (got, *state.values()):
        assert vector[50:].tobytes() == bytes(4 * 14)


@every_rule
def test_update_allocates_no_array(name: str) -> None:
    rule = OPTIMIZERS[name]
    weights, gradient, out = np.random.default_rng(8).standard_normal((3, 100_000)).astype(np.float32)
    state = rule.initial_state(weights.size)
    rule.update(weights, gradient, 0.1, state, 1e-3, 0, out)

    tracemalloc.start()
    try:
        rule.update(weights, gradient, 0.1, state, 1e-3, 1, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 10_000, f"{peak} bytes; one vector has {out.nbytes}"


def test_hyperparameters_replace_the_defaults_of_their_names_only() -> None:
    rule = optimizer("adam", {"beta1": 0.5})

    assert dict(rule.hyperparameters) == {"beta1": 0.5, "beta2": 0.999, "epsilon": 1e-8}
    assert OPTIMIZERS["adam"].hyperparameters["beta1"] == 0.9


def test_hyperparameters_reach_the_arithmetic() -> None:
    weights, gradient = np.float32([1.0, 2.0]), np.float32([0.5, -4.0])
    rule = optimizer("momentum", {"momentum": 0.0})
    state = rule.initial_state(2)
    for step in range(2):
        out = np.empty_like(weights)
        rule.update(weights, gradient, 1.0, state, 0.25, step, out)
        weights = out

    assert weights.tolist() == [0.75, 4.0]


def test_an_unknown_optimizer_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match=r"'adamw'.*sgd, momentum, nesterov, adam, adagrad, rmsprop"):
        optimizer("adamw")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("sgd", {"momentum": 0.9}, "sgd has no hyper-parameter 'momentum'"),
        ("adam", {"beta3": 0.9}, "it knows beta1, beta2, epsilon"),
        ("adam", {"beta1": 1.0}, "beta1 of adam is 1.0"),
        ("momentum", {"momentum": -0.1}, "momentum of momentum is -0.1"),
        ("rmsprop", {"decay": math.nan}, "decay of rmsprop is nan"),
        ("rmsprop", {"epsilon": 0.0}, "epsilon of rmsprop is 0.0"),
        ("adagrad", {"epsilon": math.inf}, "epsilon of adagrad is inf"),
    ],
)
def test_a_hyperparameter_that_makes_no_sense_is_refused(name: str, options: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        optimizer(name, options)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("weights", np.zeros(9, np.float32)),
        ("gradient", np.zeros(10, np.float64)),
        ("out", np.zeros((10, 1), np.float32)),
        ("gradient", np.zeros(20, np.float32)[::2]),
        ("state", {}),
        ("state", {"velocity": np.zeros(11, np.float32)}),
        ("state", {"mean_square": np.zeros(10, np.float32)}),
    ],
)
def test_vectors_that_do_not_fit_are_refused_before_compiled_code_sees_them(argument: str, value: object) -> None:
    rule = OPTIMIZERS["momentum"]
    arguments = {key: np.zeros(10, np.float32) for key in ("weights", "gradient", "out")}
    arguments |= {"state": rule.initial_state(10), argument: value}

    with pytest.raises(
        DataError, match="momentum consists" if argument == "state" and "velocity" not in value else "needs"
    ):
        rule.update(scale=1.0, rate=0.1, step=0, **arguments)


def run(
    name: str, weights: Array, sums: list[Array], rates: list[float], scale: float
) -> tuple[Array, dict[str, Array]]:
    """The weights and the state after all steps; a new buffer for each version, as in a shard."""
    rule = OPTIMIZERS[name]
    state = rule.initial_state(weights.size)
    for step, (gradient, rate) in enumerate(zip(sums, rates, strict=True)):
        out = np.full_like(weights, np.nan)
        rule.update(weights, gradient, scale, state, rate, step, out)
        weights = out
    return weights, state
