"""Local steps: what a round pushes, what it starts from, and what it comes to where it has to be plain descent."""

import functools

import numpy as np
import pytest
from small_run import small_config, small_data

from ps_vae.errors import NumericalError
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.update import Moment
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.local_steps import LocalSteps, contribution
from ps_vae.train.update import fresh_state, update_rule
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout

DATA = small_data()


def start(config):
    return initial_weights(ParameterLayout(config.model), config.seed, None)


def local(config):
    made = contribution(config, DATA.train, Buffers(ParameterLayout(config.model).size))
    assert isinstance(made, LocalSteps)
    return made


def trajectory(config, weights, step, index, moments):
    """The naive twin: Adam by its formulas, one microbatch after the other."""
    gradient = BlockGradient(config, DATA.train)
    x = weights.astype(np.float64)
    first, second, count = moments
    for batch in range(step * config.local_steps, (step + 1) * config.local_steps):
        (result,) = gradient(x.astype(np.float32), batch, [Block(index, index + 1)])
        g = result.gradient.astype(np.float64) / config.microbatch
        count += 1
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g * g
        x = x - config.learning_rate * (first / (1 - 0.9**count)) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
    return weights - x, (first, second, count)


def test_a_round_pushes_how_far_adam_comes_and_goes_on_with_its_moments():
    config = small_config(local_steps=3)
    weights, changes = start(config), local(config)
    moments = (0.0, 0.0, 0)
    for step in range(2):
        (result,) = changes(weights, step, [Block(1, 2)])
        expected, moments = trajectory(config, weights, step, 1, moments)
        # A thousandth of what Adam moves a weight by; float32 weights of 2 are rounded to a ten-thousandth of it.
        np.testing.assert_allclose(result.gradient, expected, rtol=0, atol=3 * 1e-3 * config.learning_rate)
        changes.buffers.give(result.gradient)


def test_a_block_pushes_the_sum_of_its_trajectories_in_the_order_of_the_tree():
    config = small_config(local_steps=2, optimizer="sgd", microbatch=2)
    weights = start(config)
    single = [local(config)(weights, 4, [Block(index, index + 1)])[0] for index in range(4)]
    (whole,) = local(config)(weights, 4, [Block(0, 4)])

    left, right = single[0].gradient + single[1].gradient, single[2].gradient + single[3].gradient
    np.testing.assert_array_equal(whole.gradient, left + right)
    assert whole.metrics == pytest.approx(np.sum([result.metrics for result in single], axis=0))


def test_without_inner_state_it_does_not_matter_who_computes_what():
    config = small_config(local_steps=3, optimizer="sgd", microbatch=2)
    weights, one, two = start(config), local(config), local(config)
    one(weights, 0, [Block(0, 2)])
    for step in (1, 2):
        (mine,) = one(weights, step, [Block(2, 3)])
        (other,) = two(weights, step, [Block(2, 3)])
        np.testing.assert_array_equal(mine.gradient, other.gradient)


def test_one_local_step_of_descent_averaged_is_plain_data_parallelism():
    plain = small_config(optimizer="sgd", learning_rate=0.05)
    once = small_config(optimizer="sgd", learning_rate=0.05, local_steps=1, outer_rate=1.0, outer_momentum=0.0)
    ends = []
    for config in (plain, once):
        compute = contribution(config, DATA.train, Buffers(ParameterLayout(config.model).size))
        rule, state, weights = update_rule(config), fresh_state(config, start(config)), start(config)
        for step in range(20):
            results = compute(weights, step, [Block(0, 1), Block(1, 2)])
            out = np.empty_like(weights)
            rule(weights, tuple(result.gradient for result in results), state.optimizer, Moment(step, step), out)
            weights = out
            for result in results:
                compute.buffers.give(result.gradient)
        ends.append(weights)

    assert np.abs(ends[0] - start(plain)).max() > 0.01
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=2e-6)


def test_the_outer_update_is_nesterovs_of_the_mean_change():
    config = small_config(local_steps=2, outer_rate=0.7, outer_momentum=0.9)
    rule, weights = update_rule(config), start(config)
    state = fresh_state(config, weights).optimizer
    draws = np.random.default_rng(0).standard_normal((3, 2, weights.size)).astype(np.float32)
    expected, velocity = weights.astype(np.float64), 0.0
    for step, parts in enumerate(draws):
        out = np.empty_like(weights)
        rule(weights, tuple(parts), state, Moment(step, step), out)
        weights = out
        mean = parts.astype(np.float64).sum(axis=0) / config.microbatches
        velocity = 0.9 * velocity + mean
        expected = expected - 0.7 * (mean + 0.9 * velocity)

    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-5)


def test_the_same_work_given_out_again_has_the_same_result_and_moves_the_state_once():
    config = small_config(local_steps=3)
    weights, again, once = start(config), local(config), local(config)
    first, second = (again(weights, 0, [Block(0, 1)])[0].gradient.copy() for _ in range(2))
    once(weights, 0, [Block(0, 1)])

    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(
        again(weights, 1, [Block(0, 1)])[0].gradient, once(weights, 1, [Block(0, 1)])[0].gradient
    )


def test_a_worker_that_joins_begins_without_inner_state():
    config = small_config(local_steps=3)
    weights, old, new = start(config), local(config), local(config)
    old(weights, 0, [Block(0, 1)])

    (expected, _), (result,) = trajectory(config, weights, 1, 0, (0.0, 0.0, 0)), new(weights, 1, [Block(0, 1)])

    np.testing.assert_allclose(result.gradient, expected, rtol=0, atol=3 * 1e-3 * config.learning_rate)
    assert np.abs(old(weights, 1, [Block(0, 1)])[0].gradient - result.gradient).max() > 0.1 * config.learning_rate


def test_a_trajectory_that_fails_names_the_tensor_keeps_no_array_and_begins_anew():
    config = small_config(local_steps=2)
    weights, changes = start(config), local(config)
    changes.buffers.give(changes(weights, 0, [Block(0, 1)])[0].gradient)
    broken = weights.copy()
    broken[3] = np.nan

    with pytest.raises(NumericalError, match="gradient is"):
        changes(broken, 1, [Block(0, 1), Block(1, 2)])

    assert changes.buffers.made == 1
    fresh = local(config)
    np.testing.assert_array_equal(
        changes(weights, 2, [Block(0, 1)])[0].gradient, fresh(weights, 2, [Block(0, 1)])[0].gradient
    )


def test_a_round_sees_the_rows_that_its_batches_would_see():
    """At a rate of nothing trajectories stand still: what they report is what the batches' gradients report."""
    config = small_config(local_steps=4, optimizer="sgd", learning_rate=1e-30)
    weights = start(config)
    plain = BlockGradient(small_config(), DATA.train)
    (result,) = local(config)(weights, 2, [Block(0, 2)])
    batches = [plain(weights, batch, [Block(0, 2)])[0].metrics for batch in range(8, 12)]

    assert result.metrics == pytest.approx(functools.reduce(np.add, map(np.array, batches)), rel=1e-6)


def test_with_a_delay_work_of_the_step_before_has_its_result_too_when_it_is_given_out_again():
    config = small_config(local_steps=3, delay=1)
    weights, changes = start(config), local(config)
    first = changes(weights, 0, [Block(0, 1)])[0].gradient.copy()
    changes(weights, 1, [Block(0, 1)])

    np.testing.assert_array_equal(changes(weights, 0, [Block(0, 1)])[0].gradient, first)


def test_a_change_that_is_not_finite_is_not_pushed():
    config = small_config(local_steps=1, optimizer="sgd", learning_rate=3e38)
    weights, changes = start(config), local(config)

    with pytest.raises(NumericalError, match="learning-rate"):
        changes(weights, 0, [Block(0, 1)])

    assert changes.buffers.made == 1
