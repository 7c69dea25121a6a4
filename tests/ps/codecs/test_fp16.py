"""fp16 against NumPy's float16."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from round_trip import decoded, encoded, vectors

from ps_vae.errors import PeerError
from ps_vae.ps.codecs.codec import Codec, Vector
from ps_vae.ps.codecs.fp16 import fp16

LARGEST = 65504
ALL_HALVES = np.arange(2**16, dtype=np.uint16)


def codec(numbers: int) -> Codec:
    return fp16("fp16", numbers, ())


def twin(x: Vector) -> np.ndarray:
    return np.clip(x, -LARGEST, LARGEST).astype(np.float16)


def halves(x: Vector) -> np.ndarray:
    return encoded(codec(x.size), x).view(np.uint16)[: x.size]


def around_every_half() -> Vector:
    """All finite halves, the middles between neighbours, and the float32 just below and above all of these."""
    x = ALL_HALVES[:0x7C00].view(np.float16).astype(np.float32)
    x = np.concatenate([x, (x[1:] + x[:-1]) / 2])
    x = np.concatenate([x, np.nextafter(x, np.float32(0)), np.nextafter(x, np.float32(LARGEST))])
    return np.concatenate([x, -x])


def with_every_exponent() -> Vector:
    """Float32 of all exponents up to the largest half, subnormal ones too, with some fractions of every kind."""
    rng = np.random.default_rng(0)
    ends = np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x2FFF, 0x3000, 0x3001, 0x7FFFFF], np.uint32)
    fractions = np.concatenate([ends, rng.integers(0, 2**23, 100, np.uint32)])
    x = ((np.arange(143, dtype=np.uint32) << 23)[:, None] | fractions).reshape(-1).view(np.float32)
    x = x[x <= LARGEST]
    return np.concatenate([x, -x])


@pytest.mark.parametrize("x", [around_every_half(), with_every_exponent()], ids=["halves", "exponents"])
def test_the_bits_are_numpys(x: Vector) -> None:
    np.testing.assert_array_equal(halves(x), x.astype(np.float16).view(np.uint16))


@settings(max_examples=50, deadline=None)
@given(x=vectors())
def test_numbers_of_any_magnitude_become_the_nearest_half(x: Vector) -> None:
    got = decoded(codec(x.size), encoded(codec(x.size), x))

    np.testing.assert_array_equal(got.view(np.uint32), twin(x).astype(np.float32).view(np.uint32))
    inside = np.abs(x) <= LARGEST
    error = np.abs(got.astype(np.float64) - x)
    assert (error <= np.maximum(2.0**-11 * np.abs(x.astype(np.float64)), 2.0**-25))[inside].all()


@pytest.mark.parametrize("x", [65504.004, 65519.996, 65520, 65536, 1e30, np.finfo(np.float32).max])
def test_what_is_beyond_the_largest_half_becomes_the_largest(x: float) -> None:
    gradient = np.array([x, -x], np.float32)

    assert decoded(codec(2), encoded(codec(2), gradient)).tolist() == [LARGEST, -LARGEST]


def test_two_numbers_a_word_the_first_in_the_low_half_and_zero_after_the_last() -> None:
    words = encoded(codec(3), np.array([1, -2, 0.5], np.float32))

    assert [f"{word:08x}" for word in words] == ["c0003c00", "00003800"]


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF])
def test_what_is_not_finite_is_refused_by_the_receiver(bits: int) -> None:
    gradient = np.ones(100, np.float32)
    gradient.view(np.uint32)[37] = bits

    with pytest.raises(PeerError, match=r"fp16: number 37 of 100 is -?inf") as refusal:
        decoded(codec(100), encoded(codec(100), gradient))
    assert refusal.value.code == "bad-payload"


def test_all_halves_are_read_as_numpy_reads_them_or_refused() -> None:
    with np.errstate(invalid="ignore"):
        expected = ALL_HALVES.view(np.float16).astype(np.float32)
    finite = np.isfinite(expected)

    kept = ALL_HALVES[finite]
    got = decoded(codec(kept.size), kept.view(np.uint32))
    np.testing.assert_array_equal(got.view(np.uint32), expected[finite].view(np.uint32))
    for half, value in zip(ALL_HALVES[~finite], expected[~finite], strict=True):
        with pytest.raises(PeerError, match=re.escape(f"fp16: number 0 of 1 is {value}")):
            decoded(codec(1), np.array([half], np.uint32))
