"""Gradients are clipped a microbatch at a time, before they are summed: the same bits whoever computes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import Floats, small_config, small_data, small_weights

from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.train.clipping import clip
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.local_steps import contribution
from ps_vae.vae.layout import ParameterLayout

LAYOUT = ParameterLayout(small_config().model)


def length(gradient: Floats) -> float:
    """In float64, of the tensors."""
    return math.sqrt(sum(float((view.astype(np.float64) ** 2).sum()) for view in LAYOUT.views(gradient).values()))


def random_vector(seed: int, scale: float) -> Floats:
    """With something between the tensors, which belongs to none."""
    return np.float32(scale) * np.random.default_rng(seed).standard_normal(LAYOUT.size, dtype=np.float32)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1 << 32), st.floats(1e-20, 1e20), st.floats(1e-3, 1e3))
def test_a_gradient_that_is_too_long_keeps_its_direction_and_is_as_long_as_allowed(
    seed: int, scale: float, factor: float
) -> None:
    gradient = random_vector(seed, scale)
    before, limit = gradient.copy(), length(gradient) * factor
    clip(gradient, LAYOUT, limit)
    if factor > 1.0:
        np.testing.assert_array_equal(gradient, before)
        return
    assert length(gradient) == pytest.approx(limit, rel=1e-5)
    for name, view in LAYOUT.views(gradient).items():
        np.testing.assert_allclose(
            view, factor * LAYOUT.views(before)[name].astype(np.float64), rtol=1e-5, err_msg=name
        )


def test_what_lies_between_tensors_is_neither_measured_nor_scaled() -> None:
    gradient = np.full(LAYOUT.size, np.nan, np.float32)
    for view in LAYOUT.views(gradient).values():
        view[...] = 1.0
    gaps = np.isnan(gradient)
    assert gaps.any()
    clip(gradient, LAYOUT, 1e-3)
    np.testing.assert_array_equal(np.isnan(gradient), gaps)
    assert length(gradient) == pytest.approx(1e-3, rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_stays_what_it_is(value: float) -> None:
    gradient = random_vector(1, 1.0)
    gradient[LAYOUT.tensors[1].offset] = value
    before = gradient.copy()
    clip(gradient, LAYOUT, 1e-3)
    np.testing.assert_array_equal(gradient, before)


def clipped_leaves(limit: float) -> list[Floats]:
    """Of step 3, each microbatch's gradient, clipped in float64 by the definition."""
    config = small_config()
    leaves = BlockGradient(config, small_data().train)(
        small_weights(config), 3, [Block(i, i + 1) for i in range(config.microbatches)]
    )
    return [r.gradient * min(1.0, limit / (length(r.gradient) / config.microbatch)) for r in leaves]


def test_each_microbatch_is_clipped_by_the_length_of_its_mean_gradient_and_then_summed() -> None:
    plain = small_config()
    limit = sorted(length(leaf) / plain.microbatch for leaf in clipped_leaves(math.inf))[2]
    config = small_config(clip_norm=limit)
    (result,) = BlockGradient(config, small_data().train)(small_weights(config), 3, [Block(0, config.microbatches)])
    expected = np.sum(clipped_leaves(limit), axis=0)
    np.testing.assert_allclose(result.gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert length(result.gradient) / config.batch_size <= limit * (1 + 1e-6)


def test_the_sum_has_the_same_bits_however_its_block_is_cut() -> None:
    config = small_config(clip_norm=1.0)
    gradients, weights = BlockGradient(config, small_data().train), small_weights(config)
    whole, *parts = gradients(weights, 3, [Block(0, 4), Block(0, 2), Block(2, 3), Block(3, 4)])
    first, second, third = (part.gradient for part in parts)
    np.testing.assert_array_equal(whole.gradient, first + (second + third))


def test_local_steps_clip_the_gradients_of_their_inner_steps() -> None:
    rate, limit, steps = 0.5, 0.125, 3
    config = small_config(local_steps=steps, clip_norm=limit, optimizer="sgd", learning_rate=rate)
    change = contribution(config, small_data().train, Buffers(LAYOUT.size))
    (result,) = change(small_weights(config), 0, [Block(1, 2)])
    assert 0 < length(result.gradient) <= steps * rate * limit * (1 + 1e-5)
    free = contribution(
        small_config(local_steps=steps, optimizer="sgd", learning_rate=rate), small_data().train, Buffers(LAYOUT.size)
    )
    (longer,) = free(small_weights(config), 0, [Block(1, 2)])
    assert length(longer.gradient) > steps * rate * limit
