"""onebit against a twin in NumPy, word for word, over many payloads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_trip import decoded, encoded, sizes, vectors

from ps_vae.errors import PeerError
from ps_vae.ps.codecs.codec import Codec, Vector, Words
from ps_vae.ps.codecs.onebit import onebit

BLOCK = 512
F = np.float32
LARGEST = np.finfo(np.float32).max


def codec(numbers: int) -> Codec:
    return onebit("onebit", numbers, ())


def scale_of(p: Vector) -> np.float32:
    parts = np.abs(np.pad(p, (0, BLOCK - p.size))) * F(2.0**-9)
    # Rows of 64 added from the first to the last: that is the order in which NumPy adds along the slow axis.
    sums = np.add.accumulate(parts.reshape(-1, 64), axis=0)[-1]
    while sums.size > 1:
        sums = sums[: sums.size // 2] + sums[sums.size // 2 :]
    return sums[0] * (F(BLOCK) / F(p.size))


def twin(gradient: Vector, residual: Vector) -> tuple[Words, Vector, Vector]:
    """Words, decoded numbers and the next residual."""
    p = gradient + residual
    scales = np.array([scale_of(p[i : i + BLOCK]) for i in range(0, p.size, BLOCK)], np.float32)
    sent = np.copysign(np.repeat(scales, BLOCK)[: p.size], p)
    signs = np.packbits(np.pad(np.signbit(p), (0, -p.size % 32)), bitorder="little").view("<u4")
    return np.concatenate([scales.view(np.uint32), signs]), sent, p - sent


def assert_same_bits(got: Vector, expected: Vector) -> None:
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


@settings(max_examples=50, deadline=None)
@given(gradients=st.integers(0, 5000).flatmap(lambda size: st.lists(vectors(st.just(size)), min_size=1, max_size=4)))
def test_words_decoded_numbers_and_residuals_are_those_of_the_twin(gradients: list[Vector]) -> None:
    here = codec(gradients[0].size)
    state, residual = here.initial_state(), np.zeros(here.numbers, np.float32)
    for gradient in gradients:
        words, sent, residual = twin(gradient, residual)

        got = encoded(here, gradient, state)

        np.testing.assert_array_equal(got, words)
        assert_same_bits(decoded(here, got), sent)
        assert_same_bits(state["residual"], residual)


@settings(max_examples=25, deadline=None)
@given(x=vectors())
def test_the_scale_is_the_mean_magnitude_of_the_block(x: Vector) -> None:
    here = codec(x.size)
    blocks = [x[i : i + BLOCK].astype(np.float64) for i in range(0, x.size, BLOCK)]

    got = encoded(here, x)[: len(blocks)].view(np.float32)

    np.testing.assert_allclose(got, [np.abs(block).mean() for block in blocks], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(size=sizes, magnitude=st.integers(-30, 30), seed=st.integers(0, 2**32 - 1))
def test_what_was_sent_and_what_is_left_add_up_to_the_gradients(size: int, magnitude: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    here, direction = codec(size), rng.standard_normal(size)
    state = here.initial_state()
    gradients, sent = np.zeros(size), np.zeros(size)
    for _ in range(50):
        gradient = ((direction + rng.standard_normal(size)) * 10.0**magnitude).astype(np.float32)
        gradients += gradient
        sent += decoded(here, encoded(here, gradient, state))

    left = sent + state["residual"] - gradients
    assert np.linalg.norm(left) <= 1e-5 * np.linalg.norm(gradients)


def test_a_payload_takes_off_what_the_scale_says() -> None:
    """|p - decoded|^2 = |p|^2 - d scale^2, in one block."""
    x = np.random.default_rng(3).standard_normal(BLOCK).astype(np.float32)
    here = codec(BLOCK)
    state = here.initial_state()

    scale = np.abs(decoded(here, encoded(here, x, state))[0])

    norm = np.sum(x.astype(np.float64) ** 2)
    np.testing.assert_allclose(np.sum(state["residual"].astype(np.float64) ** 2), norm - BLOCK * scale**2, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 511, 512, 1000])
@pytest.mark.parametrize("value", [LARGEST / 2, 1e38, 1e-38])
def test_the_mean_of_the_largest_and_of_the_smallest_numbers_is_finite_and_right(size: int, value: float) -> None:
    x = np.full(size, -value, np.float32)

    np.testing.assert_allclose(decoded(codec(size), encoded(codec(size), x)), x, rtol=1e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_refused_by_the_receiver(value: float) -> None:
    x = np.ones(1500, np.float32)
    x[600] = value

    with pytest.raises(PeerError, match=r"onebit: the scale of block 1 of 3 is (nan|inf)") as refusal:
        decoded(codec(x.size), encoded(codec(x.size), x))
    assert refusal.value.code == "bad-payload"


@pytest.mark.parametrize("scale", [np.nan, -np.nan, np.inf, -np.inf, -1, -1e-45, -0.0])
@pytest.mark.parametrize("block", [0, 2])
def test_a_scale_that_is_not_finite_or_has_a_sign_is_refused(scale: float, block: int) -> None:
    words = encoded(codec(1500), np.ones(1500, np.float32))
    words[block] = np.array(scale, np.float32).view(np.uint32)

    with pytest.raises(PeerError, match=f"onebit: the scale of block {block} of 3 is") as refusal:
        decoded(codec(1500), words)
    assert refusal.value.code == "bad-payload"


@pytest.mark.parametrize("scale", [F(0), F(1e-45), LARGEST])
def test_any_other_scale_is_read(scale: np.float32) -> None:
    words = np.array([scale.view(np.uint32), 0b10], np.uint32)

    assert_same_bits(decoded(codec(3), words), np.array([scale, -scale, scale], np.float32))
