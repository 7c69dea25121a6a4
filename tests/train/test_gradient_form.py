"""Gradients in factored form: decoded by the shards they are what the worker would have sent without a codec."""

import math

import numpy as np
import pytest
from small_run import Floats, small_config, small_data, small_weights

from ps_vae.data import load
from ps_vae.errors import NumericalError
from ps_vae.nn.simd import FUSED
from ps_vae.ps.actions import Result
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.encoder import Encoder, room_for
from ps_vae.ps.frames import encode
from ps_vae.ps.messages import Push
from ps_vae.ps.partition import Slice, partition
from ps_vae.train.config import RunConfig
from ps_vae.train.encoding import push_codecs
from ps_vae.train.form import factored_form
from ps_vae.train.gradient import BlockGradient
from ps_vae.train.plan import Wishes, plan
from ps_vae.vae.layout import ParameterLayout


def factored(config: RunConfig, shards: int) -> tuple[BlockGradient, list[Slice]]:
    slices = partition(ParameterLayout(config.model).size, shards)
    return BlockGradient(config, small_data().train, form=factored_form(config, slices)), slices


def pushed(config: RunConfig, slices: list[Slice], step: int, result: Result) -> list[Floats]:
    """What goes to each shard."""
    codecs = push_codecs(config, slices)
    encoder = Encoder(codecs, slices, config.seed, Buffers(room_for(codecs, config.microbatches)), repeats=True)
    return encoder.parts(encoder.encode(step, result), len(result.block))


def decoded(config: RunConfig, slices: list[Slice], payloads: list[Floats], microbatches: int) -> Floats:
    whole = np.full(slices[-1].stop, np.nan, np.float32)
    for codec, piece, words in zip(push_codecs(config, slices), slices, payloads, strict=True):
        codec(microbatches).decode(words.view(np.uint32), whole[piece.start : piece.stop])
    return whole


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("rows", [1, 3])
def test_decoded_factors_of_every_block_are_the_dense_gradient(shards: int, rows: int) -> None:
    """To rounding everywhere, and bit for bit where a shard holds whole tensors or processors can fuse."""
    config = small_config(batch_size=7 * rows, microbatch=rows, hidden=(24, 8), push_codec="factors")
    weights = small_weights(config)
    blocks = [Block(0, 1), Block(2, 3), Block(0, 2), Block(4, 6), Block(4, 7), Block(0, 4), Block(0, 7)]
    gradients, slices = factored(config, shards)
    dense = BlockGradient(config, small_data().train)(weights, 5, blocks)

    sizes = []
    for expected, result in zip(dense, gradients(weights, 5, blocks), strict=True):
        payloads = pushed(config, slices, 5, result)
        got = decoded(config, slices, payloads, len(result.block))
        sizes.append(sum(payload.size for payload in payloads))
        assert result.metrics == expected.metrics
        np.testing.assert_allclose(got, expected.gradient, rtol=0, atol=1e-6 * np.abs(expected.gradient).max())
        if shards == 1 or FUSED:
            np.testing.assert_array_equal(got.view(np.uint32), expected.gradient.view(np.uint32))
    assert sizes[0] < gradients.layout.size


def test_a_push_has_the_bytes_of_the_formula_and_never_more_than_a_dense_one() -> None:
    """784-400-20-400-784: 53,280 words at 16 rows, 99,488 at 32, 177,184 at 64, the 652,832 of the gradient at 512."""
    layers = [(784, 400), (400, 40), (20, 400), (400, 784)]
    sent = {}
    for batch, microbatch in ((16, 16), (32, 32), (32, 16), (64, 64), (64, 16), (512, 64)):
        config = model_of_the_docstring(batch, microbatch)
        size = ParameterLayout(config.model).size
        (codec,) = push_codecs(config, [Slice(0, size)])
        block = Block(0, config.microbatches)
        (words,) = pushed(config, [Slice(0, size)], 0, Result(block, np.zeros(size, np.float32), (0.0, 0.0)))
        frames = encode(Push(bytes(16), 0, bytes(16), 1, 0, 0, block.stop, 0, (0.0, 0.0), None, (words,)))
        saved = sum(max(0, rows * columns - batch * (rows + columns)) for rows, columns in layers)
        assert memoryview(frames[1]).nbytes == 4 * (size - saved) == 4 * codec(config.microbatches).words
        sent[batch, microbatch] = words.size

    assert sent == {
        (16, 16): 53_280, (32, 32): 99_488, (32, 16): 99_488, (64, 64): 177_184, (64, 16): 177_184, (512, 64): 652_832
    }  # fmt: skip


def model_of_the_docstring(batch: int, microbatch: int) -> RunConfig:
    wishes = Wishes(
        data="gaussian:600x784", hidden=(400,), latent=20, likelihood="gaussian", batch_size=batch,
        microbatch=microbatch, push_codec="factors",
    )  # fmt: skip
    config = plan(wishes, load("gaussian:600x784"))
    # As of a Bernoulli likelihood: one output a pixel.
    assert [tensor.shape for tensor in ParameterLayout(config.model)][-2:] == [(400, 784), (784,)]
    return config


def test_layers_that_are_sent_as_factors_are_not_multiplied_by_the_worker() -> None:
    config = small_config(batch_size=2, microbatch=2, push_codec="factors")
    (piece,) = partition(ParameterLayout(config.model).size, 1)
    form = factored_form(config, [piece])

    # 64 x 8, 8 x 4 and 8 x 64 of the layers, not 2 x 8; for two microbatches not 8 x 4 either.
    assert form(1).without == (0, 1, 3)
    assert form(2).without == (0, 3)
    assert form(3).without == (0, 3)
    assert form(4).without == ()
    assert form(4).sums == form(4).written == (slice(0, piece.size),)


@pytest.mark.parametrize("tensor", ["encoder.0.weight", "likelihood.weight"])
def test_factors_that_are_not_finite_are_an_error_that_names_step_and_tensor(tensor: str) -> None:
    config = small_config(push_codec="factors")
    gradients, _ = factored(config, 1)
    weights = small_weights(config)
    gradients.layout.views(weights)[tensor].flat[0] = math.nan

    with pytest.raises(NumericalError, match=r"step 17: the gradient is nan in encoder\.0\.weight"):
        gradients(weights, 17, [Block(0, 1)])


def test_the_matrix_whose_factors_are_not_finite_is_the_one_that_is_named() -> None:
    config = small_config(push_codec="factors")
    gradients, _ = factored(config, 1)
    weights = small_weights(config)
    # Hidden units of the decoder become infinite for every row; their rule cuts what comes back to finite numbers.
    gradients.layout.views(weights)["decoder.0.bias"][0] = math.inf

    with pytest.raises(NumericalError, match=r"inf in likelihood\.weight"):
        gradients(weights, 0, [Block(0, 1)])


def test_what_lies_in_the_places_that_are_not_sent_is_no_error_and_changes_nothing() -> None:
    config = small_config(batch_size=6, microbatch=2, push_codec="factors")
    gradients, slices = factored(config, 2)
    weights = small_weights(config)
    (first,) = gradients(weights, 1, [Block(0, 3)])
    expected = [words.copy() for words in pushed(config, slices, 1, first)]

    # Left over from before: another block, in another form, diverged.
    for tensor in gradients.layout:
        if len(tensor.shape) == 2:
            gradients.layout.views(first.gradient)[tensor.name][:] = math.nan
    gradients.buffers.give(first.gradient)
    (again,) = gradients(weights, 1, [Block(0, 3)])

    assert again.gradient is first.gradient
    for words, same in zip(pushed(config, slices, 1, again), expected, strict=True):
        np.testing.assert_array_equal(words.view(np.uint32), same.view(np.uint32))
