"""What a shard does with a step's sum: divide by the batch size, apply the optimizer at the version's rate."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from small_run import small_config

from ps_vae.optim.table import OPTIMIZERS
from ps_vae.ps.update import Moment
from ps_vae.train.spread import spread
from ps_vae.train.update import fresh_state, look_ahead_rule, update_rule

Array = npt.NDArray[np.float32]
START = Moment(version=0, updates=0)


def test_one_step_of_descent_subtracts_the_mean_bit_for_bit() -> None:
    config = small_config(optimizer="sgd", learning_rate=0.25, batch_size=32)
    random = np.random.default_rng(0)
    weights, gradient = random.standard_normal((2, 100)).astype(np.float32)
    out = np.empty_like(weights)
    update_rule(config)(weights, (gradient,), {}, START, out)
    np.testing.assert_array_equal(out, weights - np.float32(0.25) * (gradient / np.float32(32)))


def test_adam_on_means_over_the_batch_at_the_rate_of_each_version() -> None:
    """Kingma & Ba (2015), algorithm 1, in float64; the rate falls along a half cosine over 6 steps."""
    config = small_config(optimizer="adam", schedule="cosine", learning_rate=0.1, batch_size=24, steps=6)
    random = np.random.default_rng(1)
    start = random.standard_normal(50).astype(np.float32)
    state = fresh_state(config, start)
    assert state.version == 0
    weights, update = state.weights, update_rule(config)
    w, m, v = start.astype(np.float64), np.zeros(50), np.zeros(50)
    for version in range(6):
        total = (24 * random.standard_normal(50)).astype(np.float32)
        out = np.empty_like(weights)
        update(weights, (total,), state.optimizer, Moment(version, version), out)
        weights = out

        g, rate = total.astype(np.float64) / 24, 0.1 * 0.5 * (1 + math.cos(math.pi * version / 6))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - rate * (m / (1 - 0.9 ** (version + 1))) / (np.sqrt(v / (1 - 0.999 ** (version + 1))) + 1e-8)
        np.testing.assert_allclose(weights, w, rtol=0, atol=2e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_arrays_that_may_not_be_written_to_give_the_same_bits(optimizer: str) -> None:
    config = small_config(optimizer=optimizer)
    random = np.random.default_rng(2)
    weights, gradient = random.standard_normal((2, 33)).astype(np.float32)
    received = [np.frombuffer(vector.tobytes(), np.float32) for vector in (weights, gradient)]
    outs = []
    for pair in ([weights, gradient], received):
        out = np.empty_like(weights)
        update_rule(config)(pair[0], (pair[1],), fresh_state(config, weights).optimizer, START, out)
        outs.append(out)
    np.testing.assert_array_equal(outs[0], outs[1])


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_the_last_addition_in_the_update_gives_the_bits_of_an_addition_before_it(optimizer: str) -> None:
    config = small_config(optimizer=optimizer)
    random = np.random.default_rng(5)
    weights, left, right = random.standard_normal((3, 1000)).astype(np.float32)
    outs, states = [], []
    for parts in ((left, right), (left + right,)):
        out, state = np.empty_like(weights), fresh_state(config, weights).optimizer
        update_rule(config)(weights, parts, state, START, out)
        outs.append(out.tobytes())
        states.append({name: array.tobytes() for name, array in state.items()})
    assert outs[0] == outs[1]
    assert states[0] == states[1]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("size", [99, 100, 1000, 1024])
def test_two_cores_give_the_bits_of_one(optimizer: str, size: int) -> None:
    config = small_config(optimizer=optimizer)
    random = np.random.default_rng(7)
    weights, left, right = random.standard_normal((3, size)).astype(np.float32)
    outs, states = [], []
    for rule in (update_rule(config), spread(update_rule(config), 100)):
        out, state = np.empty_like(weights), fresh_state(config, weights).optimizer
        for step in range(3):
            rule(weights, (left, right), state, Moment(step, step), out)
        outs.append(out.tobytes())
        states.append({name: array.tobytes() for name, array in state.items()})
    assert outs[0] == outs[1]
    assert states[0] == states[1]


def test_what_fails_on_the_second_core_is_not_lost() -> None:
    def fails_on_the_second(weights: Array, parts: object, state: object, moment: object, out: Array) -> None:
        if out[0] == 1:
            raise ArithmeticError("there")
        out[:] = 2

    out = np.repeat(np.float32([0, 1]), 64)
    rule = spread(fails_on_the_second, 1)
    for _ in range(2):
        with pytest.raises(ArithmeticError, match="there"):
            rule(out, (out,), {}, START, np.repeat(np.float32([0, 1]), 64))


def test_a_slice_is_updated_as_in_the_whole_vector() -> None:
    config = small_config(optimizer="adam")
    random = np.random.default_rng(3)
    weights, gradient = random.standard_normal((2, 96)).astype(np.float32)
    whole, pieces = np.empty_like(weights), np.empty_like(weights)
    update_rule(config)(weights, (gradient,), fresh_state(config, weights).optimizer, START, whole)
    for piece in (slice(0, 16), slice(16, 80), slice(80, 96)):
        state = fresh_state(config, weights[piece]).optimizer
        update_rule(config)(weights[piece], (gradient[piece],), state, START, pieces[piece])
    np.testing.assert_array_equal(pieces, whole)


def test_the_blocks_of_a_step_move_the_weights_as_far_as_the_whole_step() -> None:
    """Descent along a gradient that stays the same: two blocks of 8 and 24 of 32 rows make one step."""
    config = small_config(optimizer="sgd", learning_rate=0.5, batch_size=32, microbatch=8)
    weights, mean = np.random.default_rng(4).standard_normal((2, 40)).astype(np.float32)
    update, out, half = update_rule(config), np.empty_like(weights), np.empty_like(weights)
    update(weights, (8 * mean,), {}, Moment(0, 0, 0.25), half)
    update(half, (24 * mean,), {}, Moment(0, 1, 0.75), out)
    np.testing.assert_allclose(out, weights - 0.5 * mean, rtol=0, atol=1e-6)


def test_looking_ahead_goes_straight_on() -> None:
    look_ahead = look_ahead_rule(small_config(optimizer="adam"))
    assert look_ahead is not None
    before, weights = np.random.default_rng(5).standard_normal((2, 33)).astype(np.float32)
    out = np.empty_like(weights)
    look_ahead(before, weights, 2.0, out)
    np.testing.assert_allclose(out, 3 * weights - 2 * before, rtol=0, atol=1e-5)
    assert look_ahead_rule(small_config(optimizer="sgd")) is None


@pytest.mark.parametrize(("optimizer", "factor"), [("sgd", 0.25), ("momentum", 0.25), ("adam", 0.5), ("rmsprop", 0.5)])
def test_a_quarter_of_a_step_is_taken_at_the_rate_that_its_rule_scales_to(optimizer: str, factor: float) -> None:
    """One update from rest on the same mean gradient: its length is that of the whole step times the rate's factor."""
    config = small_config(optimizer=optimizer, learning_rate=0.5, batch_size=32, microbatch=8)
    weights, mean = np.random.default_rng(6).standard_normal((2, 40)).astype(np.float32)
    whole, quarter = np.empty_like(weights), np.empty_like(weights)
    for out, rows, share in ((whole, 32, 1.0), (quarter, 8, 0.25)):
        state = fresh_state(config, weights).optimizer
        update_rule(config)(weights, (rows * mean,), state, Moment(0, 0, share), out)
    np.testing.assert_allclose(quarter - weights, factor * (whole - weights), rtol=0, atol=2e-6)
