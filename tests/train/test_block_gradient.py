"""The gradient of a block is the tree sum of its microbatches, and what is not finite does not leave the worker."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small_run import Floats, small_config, small_data, small_weights

from ps_vae.data import Split, rows_of
from ps_vae.errors import NumericalError
from ps_vae.ps.blocks import Block
from ps_vae.train.config import RunConfig
from ps_vae.train.examples import Batches
from ps_vae.train.gradient import BlockGradient, is_finite
from ps_vae.vae.bounds import Objective
from ps_vae.vae.layout import ParameterLayout
from ps_vae.vae.network import Workspace
from ps_vae.vae.objective import objective_gradient


def gradients_of(config: RunConfig, split: Split | None = None) -> BlockGradient:
    return BlockGradient(config, split if split is not None else small_data().train)


def tree(config: RunConfig, step: int) -> dict[Block, tuple[Floats, tuple[float, float]]]:
    """Every node of the step's tree, level by level from the leaves: pairs are added, an odd one moves up as it is."""
    layout, workspace = ParameterLayout(config.model), Workspace(config.model, config.microbatch, trains=True)
    batches, parameters = Batches(config, small_data().train), layout.bind(small_weights(config))
    level = []
    for index in range(config.microbatches):
        gradient = layout.zeros()
        batches.fill(step, index, workspace.batch, workspace.noise)
        beta = config.beta * min(1.0, step / config.beta_warmup) if config.beta_warmup else config.beta
        sums = objective_gradient(
            parameters,
            workspace.batch,
            workspace.noise,
            objective=Objective(beta=beta),
            workspace=workspace,
            gradient=layout.bind(gradient),
        )
        level.append((Block(index, index + 1), gradient, (sums.log_likelihood, sums.kl)))
    nodes = list(level)
    while len(level) > 1:
        odd = level[len(level) // 2 * 2 :]
        level = [
            (Block(a.start, b.stop), g + h, (m[0] + n[0], m[1] + n[1]))
            for (a, g, m), (b, h, n) in zip(level[::2], level[1::2], strict=False)
        ]
        nodes += level
        level += odd
    return {block: (gradient, metrics) for block, gradient, metrics in nodes}


@pytest.mark.parametrize("microbatches", range(1, 10))
def test_the_gradient_of_every_block_is_the_sum_of_its_microbatches_in_the_order_of_the_tree(
    microbatches: int,
) -> None:
    config = small_config(batch_size=3 * microbatches, microbatch=3, beta=0.5, beta_warmup=8)
    gradients, expected = gradients_of(config), tree(config, 5)
    assert Block(0, microbatches) in expected
    results = gradients(small_weights(config), 5, list(expected))
    assert [result.block for result in results] == list(expected)
    for result, (gradient, metrics) in zip(results, expected.values(), strict=True):
        np.testing.assert_array_equal(result.gradient, gradient, str(result.block))
        assert result.metrics == metrics


def test_microbatches_of_another_size_sum_to_the_same_gradient_to_rounding() -> None:
    whole, parts = (gradients_of(small_config(batch_size=24, microbatch=rows)) for rows in (24, 4))
    weights = small_weights(small_config())
    (one,), (other,) = whole(weights, 0, [Block(0, 1)]), parts(weights, 0, [Block(0, 6)])
    scale = np.abs(one.gradient).max()
    np.testing.assert_allclose(other.gradient, one.gradient, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(other.metrics, one.metrics, rtol=1e-6)


def test_arrays_that_are_given_back_are_all_that_is_needed() -> None:
    config = small_config(batch_size=32)
    gradients, weights = gradients_of(config), small_weights(config)
    made = []
    for step in range(5):
        for result in gradients(weights, step, [Block(0, 8), Block(8, 16)]):
            gradients.buffers.give(result.gradient)
        made.append(gradients.buffers.made)
    assert made == made[:1] * 5
    # The two results; sums on the way to them lie elsewhere.
    assert made[0] == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "tensor", ["encoder.0.weight", "posterior.weight", "posterior.bias", "decoder.0.weight", "likelihood.weight"]
)
def test_weights_that_are_not_finite_are_an_error_that_names_step_and_tensor(tensor: str, value: float) -> None:
    config = small_config()
    gradients, weights = gradients_of(config), small_weights(config)
    gradients.layout.views(weights)[tensor].flat[0] = value
    with pytest.raises(NumericalError) as caught:
        gradients(weights, 17, [Block(0, 4)])
    # Every path from these weights leads back to the first layer.
    words = ["step 17", "nan in encoder.0.weight", "--learning-rate than 0.001"]
    assert [word for word in words if word not in str(caught.value)] == []


def test_the_tensor_that_is_named_is_the_one_that_is_not_finite() -> None:
    gradients, weights = gradients_of(small_config()), small_weights(small_config())
    # Hidden units of the decoder become infinite for every row; their rule cuts what comes back to finite numbers.
    gradients.layout.views(weights)["decoder.0.bias"][0] = math.inf
    with pytest.raises(NumericalError, match=r"in likelihood\.weight"):
        gradients(weights, 0, [Block(0, 1)])


def test_an_elbo_that_is_not_finite_is_an_error_even_where_the_gradient_is() -> None:
    gradients, weights = gradients_of(small_config()), small_weights(small_config())
    gradients.layout.views(weights)["likelihood.bias"][0] = math.inf
    with pytest.raises(NumericalError, match="step 0: the gradient is not finite in the ELBO"):
        gradients(weights, 0, [Block(0, 1)])


def test_no_array_is_kept_back_by_an_error_in_a_later_block() -> None:
    config, train = small_config(), small_data().train
    table = np.full((100, 64), 0.5, np.float32)
    order = rows_of(config.seed, 0, 100, np.empty(8, np.int64))
    table[order[6]] = math.nan  # in the last microbatch of step 0
    gradients = gradients_of(config, dataclasses.replace(train, array=table, start=0, stop=100, shuffled=False))
    made = []
    for _ in range(3):
        with pytest.raises(NumericalError):
            gradients(small_weights(config), 0, [Block(0, 2), Block(2, 3), Block(3, 4)])
        made.append(gradients.buffers.made)
    assert made == made[:1] * 3
    finite = gradients(small_weights(config), 0, [Block(0, 2), Block(2, 3)])
    assert all(np.isfinite(result.gradient).all() for result in finite)


@settings(deadline=None, max_examples=300)
@given(arrays.arrays(np.float32, st.integers(0, 70), elements=st.floats(width=32)))
def test_is_finite_says_what_numpy_says(vector: Floats) -> None:
    assert is_finite(vector) == bool(np.isfinite(vector).all())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("huge", [0.0, 1e38, -3.4e38, 1e-45])
def test_is_finite_finds_one_bad_number_at_any_place_among_huge_and_tiny_ones(huge: float, value: float) -> None:
    vector = np.full(131, huge, np.float32)
    assert is_finite(vector)
    for place in range(vector.size):
        vector[place] = value
        assert not is_finite(vector)
        vector[place] = huge


def test_is_finite_takes_what_came_from_the_wire() -> None:
    vector = np.frombuffer(np.array([1.0, math.inf], np.float32).tobytes(), np.float32)
    assert not vector.flags.writeable
    assert not is_finite(vector)
    assert is_finite(vector[:1])
