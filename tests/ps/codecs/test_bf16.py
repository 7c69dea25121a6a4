"""bf16 against rounding in float64."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from round_trip import decoded, encoded, vectors

from ps_vae.errors import PeerError
from ps_vae.ps.codecs.bf16 import bf16
from ps_vae.ps.codecs.codec import Codec, Vector

LARGEST = (2 - 2.0**-7) * 2.0**127


def codec(numbers: int) -> Codec:
    return bf16("bf16", numbers, ())


def twin(x: Vector) -> Vector:
    """Eight digits, in binary, after the first that is not zero, but none below 2^-133; no more than the largest."""
    exact = x.astype(np.float64)
    _, exponent = np.frexp(exact)
    unit = np.ldexp(1.0, np.maximum(exponent - 8, -133))
    return np.clip(np.rint(exact / unit) * unit, -LARGEST, LARGEST).astype(np.float32)


def assert_same_bits(got: Vector, expected: Vector) -> None:
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


def around_every_bf16() -> Vector:
    """All finite bf16, the middles between neighbours, and the float32 just below and above those."""
    upper = np.arange(0x7F80, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = (upper[:, None] | lower).reshape(-1).view(np.float32)
    return np.concatenate([x, -x])


def test_every_bf16_every_tie_and_their_neighbours_are_rounded_to_the_nearest_even() -> None:
    x = around_every_bf16()

    assert_same_bits(decoded(codec(x.size), encoded(codec(x.size), x)), twin(x))


@settings(max_examples=50, deadline=None)
@given(x=vectors())
def test_numbers_of_any_magnitude_are_rounded_to_the_nearest(x: Vector) -> None:
    got = decoded(codec(x.size), encoded(codec(x.size), x))

    assert_same_bits(got, twin(x))
    normal = np.abs(x) >= 2.0**-126
    assert (np.abs(got.astype(np.float64) - x) <= 2.0**-8 * np.abs(x.astype(np.float64)))[normal].all()


def test_two_numbers_a_word_the_first_in_the_low_half_and_zero_after_the_last() -> None:
    words = encoded(codec(3), np.array([1, -2, 0.5], np.float32))

    assert [f"{word:08x}" for word in words] == ["c0003f80", "00003f00"]


@pytest.mark.parametrize("x", [3.4e38, float(np.finfo(np.float32).max)])
def test_what_is_beyond_the_largest_bf16_becomes_the_largest(x: float) -> None:
    gradient = np.array([x, -x], np.float32)

    np.testing.assert_array_equal(decoded(codec(2), encoded(codec(2), gradient)), np.array([LARGEST, -LARGEST]))


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF])
def test_what_is_not_finite_is_refused_by_the_receiver(bits: int) -> None:
    gradient = np.ones(100, np.float32)
    gradient.view(np.uint32)[37] = bits

    with pytest.raises(PeerError, match=r"bf16: number 37 of 100 is (nan|-?inf)") as refusal:
        decoded(codec(100), encoded(codec(100), gradient))
    assert refusal.value.code == "bad-payload"


def test_all_halves_are_read_as_the_upper_half_of_a_float32_or_refused() -> None:
    halves = np.arange(2**16, dtype=np.uint32)
    expected = (halves << 16).view(np.float32)
    finite = np.isfinite(expected)

    kept = halves[finite].astype(np.uint16)
    assert_same_bits(decoded(codec(kept.size), kept.view(np.uint32)), expected[finite])
    for half, value in zip(halves[~finite], expected[~finite], strict=True):
        with pytest.raises(PeerError, match=re.escape(f"bf16: number 0 of 1 is {value}")):
            decoded(codec(1), np.array([half], np.uint32))
