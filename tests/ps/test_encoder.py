"""What a worker sends in place of its gradients."""

import numpy as np
import pytest

from ps_vae.nn.dense import weight_gradient
from ps_vae.ps.actions import Result
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import Matrix
from ps_vae.ps.codecs.factors import Products, factors
from ps_vae.ps.codecs.table import codec_for
from ps_vae.ps.encoder import Encoder, room_for
from ps_vae.ps.partition import Slice

SIZE, SLICES = 1600, (Slice(0, 528), Slice(528, 1600))


def encoder(words, *, repeats=True):
    codecs = [codec_for(words)(piece.size, ()) for piece in SLICES]
    of_blocks = [lambda microbatches, codec=codec: codec for codec in codecs]
    return Encoder(of_blocks, SLICES, 7, Buffers(room_for(of_blocks, 4)), repeats=repeats), codecs


def result(seed, start=0, stop=1):
    gradient = np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
    return Result(Block(start, stop), gradient, (1.0,))


def decoded(machine, codecs, array):
    whole = np.empty(SIZE, np.float32)
    for codec, piece, part in zip(codecs, SLICES, machine.parts(array, 1), strict=True):
        codec.decode(part.view(np.uint32), whole[piece.start : piece.stop])
    return whole


def test_each_shard_gets_the_words_of_its_own_slice():
    machine, codecs = encoder("bf16")
    gradient = result(0)

    parts = machine.parts(machine.encode(0, gradient), 1)

    assert [part.size for part in parts] == [264, 536]
    for codec, piece, part in zip(codecs, SLICES, parts, strict=True):
        alone = np.zeros(codec.words, np.uint32)
        codec.encode(gradient.gradient[piece.start : piece.stop], {}, (0, 0, 0), alone)
        np.testing.assert_array_equal(part.view(np.uint32), alone)


def test_what_was_sent_and_the_residual_add_up_to_the_gradients_whatever_the_blocks():
    machine, codecs = encoder("onebit")
    sums, sent = np.zeros(SIZE), np.zeros(SIZE)
    for step in range(30):
        for start in range(1 + step % 3):
            piece = result(100 * step + start, start, start + 1)
            sums += piece.gradient
            array = machine.encode(step, piece)
            sent += decoded(machine, codecs, array)
            machine._buffers.give(array)

    residual = np.concatenate([state["residual"] for state in machine._states])
    np.testing.assert_allclose(sent + residual, sums, rtol=0, atol=1e-5 * np.abs(sums).max())


@pytest.mark.parametrize("words", ["onebit", "int8"])
def test_work_that_is_given_out_again_is_answered_with_the_same_words(words):
    machine, _ = encoder(words)
    machine.encode(0, result(1))
    first = machine.encode(1, result(2)).copy()
    states = [{name: array.copy() for name, array in state.items()} for state in machine._states]

    again = machine.encode(1, result(2))

    np.testing.assert_array_equal(again.view(np.uint32), first.view(np.uint32))
    for before, after in zip(states, machine._states, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])


def test_work_that_is_done_again_on_newer_weights_is_encoded_anew():
    machine, codecs = encoder("bf16", repeats=False)
    machine.encode(1, result(2))

    again = machine.encode(1, result(3))

    np.testing.assert_allclose(decoded(machine, codecs, again), result(3).gradient, rtol=2**-8)


def test_pieces_of_a_step_and_shards_have_random_numbers_of_their_own():
    machine, _ = encoder("int8")
    gradient = np.full(SIZE, 0.3, np.float32)
    gradient[::512] = 127
    pushed = [machine.encode(0, Result(Block(start, start + 1), gradient, (1.0,))).copy() for start in (0, 1)]

    assert not np.array_equal(pushed[0].view(np.uint32), pushed[1].view(np.uint32))
    first, second = (part.view(np.int8)[4 * 4 : 4 * 4 + 500] for part in machine.parts(pushed[0], 1))
    assert not np.array_equal(first, second)


def test_blocks_of_different_lengths_take_different_words_in_arrays_that_have_room_for_the_largest():
    matrices = (Matrix(0, 16, 32),)
    of_blocks = [factors("factors", piece.size, matrices, Products(2, weight_gradient)) for piece in SLICES]
    machine = Encoder(of_blocks, SLICES, 7, Buffers(room_for(of_blocks, 8)), repeats=True)

    for start, stop, words in ((0, 1, 96), (2, 4, 192), (4, 8, 384), (0, 8, 512)):
        pushed = result(stop, start, stop)
        array = machine.encode(0, pushed)
        parts = machine.parts(array, stop - start)
        assert [part.size for part in parts] == [words + 16, words + 560]
        for codec, piece, part in zip(of_blocks, SLICES, parts, strict=True):
            alone = np.zeros(part.size, np.uint32)
            codec(stop - start).encode(pushed.gradient[piece.start : piece.stop], {}, (0, 0, 0), alone)
            np.testing.assert_array_equal(part.view(np.uint32), alone)


def test_with_a_delay_work_of_the_step_before_is_answered_with_its_words_too():
    machine, _ = encoder("onebit")
    first = machine.encode(0, result(0)).copy()
    second = machine.encode(1, result(1)).copy()

    np.testing.assert_array_equal(machine.encode(0, result(0)).view(np.uint32), first.view(np.uint32))
    np.testing.assert_array_equal(machine.encode(1, result(1)).view(np.uint32), second.view(np.uint32))
