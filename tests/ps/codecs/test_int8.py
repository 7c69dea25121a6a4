"""int8 against a twin in NumPy, word for word, and what chance has to do with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_trip import KEY, decoded, encoded, vectors

from ps_vae.errors import PeerError
from ps_vae.ps.codecs.codec import Codec, Key, Vector, Words
from ps_vae.ps.codecs.int8 import int8

BLOCK = 512
F = np.float32
LARGEST = np.finfo(np.float32).max
FINEST, COARSEST = F(2.0**-110), LARGEST / F(128)


def codec(numbers: int) -> Codec:
    return int8("int8", numbers, ())


def philox(counter: list[np.ndarray | int], key: list[int]) -> list[np.ndarray]:
    """Salmon et al. 2011, in the paper's order, on arrays of counters; seven rounds."""
    low = np.uint64(2**32 - 1)
    x = [np.asarray(word, np.uint64) for word in counter]
    k = list(key)
    for _ in range(7):
        a, b = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        x = [(b >> 32) ^ x[1] ^ np.uint64(k[0]), b & low, (a >> 32) ^ x[3] ^ np.uint64(k[1]), a & low]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return x


def chances(block: int, key: Key) -> np.ndarray:
    """Sixteen bits for each number of a block."""
    seed, step, number = key
    words = philox([64 * block + np.arange(64), number, step, 255], [seed % 2**32, seed >> 32])
    of_each_pair = np.concatenate([np.broadcast_to(word, 64) for word in words])
    return np.stack([of_each_pair % 2**16, of_each_pair >> 16], axis=1).reshape(-1).astype(np.int64)


def twin(x: Vector, key: Key = KEY) -> tuple[Vector, np.ndarray]:
    """Scales, and the whole number of each element."""
    scales, quanta = [], []
    for block, start in enumerate(range(0, x.size, BLOCK)):
        part = x[start : start + BLOCK]
        scale = np.maximum(np.abs(part).max() / F(127), FINEST)
        t = np.rint(part * (F(65536) / scale)).astype(np.int64)
        scales.append(np.minimum(scale, COARSEST))
        quanta.append((t + chances(block, key)[: part.size]) // 65536)
    return np.array(scales, np.float32), np.concatenate([*quanta, np.zeros(0, np.int64)])


def words_of(scales: Vector, quanta: np.ndarray) -> Words:
    of_bytes = np.pad(quanta % 256, (0, -quanta.size % 4)).reshape(-1, 4) @ (256 ** np.arange(4))
    return np.concatenate([scales.view(np.uint32), of_bytes.astype(np.uint32)])


keys = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))


@settings(max_examples=100, deadline=None)
@given(x=vectors(), key=keys)
def test_words_are_those_of_the_twin_and_decoded_numbers_its_products(x: Vector, key: Key) -> None:
    scales, quanta = twin(x, key)

    words = encoded(codec(x.size), x, key=key)

    np.testing.assert_array_equal(words, words_of(scales, quanta))
    np.testing.assert_array_equal(decoded(codec(x.size), words), quanta.astype(F) * np.repeat(scales, BLOCK)[: x.size])


@settings(max_examples=50, deadline=None)
@given(x=vectors(), key=keys)
def test_no_number_is_off_by_more_than_the_scale_of_its_block(x: Vector, key: Key) -> None:
    got = decoded(codec(x.size), encoded(codec(x.size), x, key=key)).astype(np.float64)

    scale = np.repeat(twin(x, key)[0].astype(np.float64), BLOCK)[: x.size]
    assert (np.abs(got - x) <= (1 + 2.0**-15) * scale).all()


def test_the_average_over_many_steps_is_the_gradient() -> None:
    """Bounds in standard errors, of numbers that never change: seeds and steps are fixed."""
    steps, size = 4000, 700
    x = np.random.default_rng(5).standard_normal(size).astype(np.float32)
    scale = np.repeat(twin(x)[0].astype(np.float64), BLOCK)[:size]
    fraction = (x / scale) % 1

    total = np.zeros(size)
    for step in range(steps):
        total += decoded(codec(size), encoded(codec(size), x, key=(11, step, 2)))

    error = (total / steps - x) / scale
    variance = fraction * (1 - fraction) / steps
    wavering = variance > 0.01 / steps  # the others are on a whole number, or nearly
    assert wavering.sum() > 0.95 * size
    z = error[wavering] / np.sqrt(variance[wavering])
    assert np.abs(z).max() < 4.5
    assert abs(z.sum()) / np.sqrt(z.size) < 3
    # Of independent errors the mean square is 1.
    assert abs(np.mean(z**2) - 1) < 4 * np.sqrt(2 / z.size)
    np.testing.assert_allclose(error[~wavering], 0, atol=0.01)


def test_whole_multiples_of_the_scale_are_exact() -> None:
    x = np.ldexp(np.concatenate([np.arange(-127, 128), np.arange(-127, 128)]), -9).astype(np.float32)

    for step in range(20):
        np.testing.assert_array_equal(decoded(codec(x.size), encoded(codec(x.size), x, key=(1, step, 0))), x)


def test_a_number_below_half_a_unit_is_always_zero_and_one_above_is_not() -> None:
    """The least that sixteen bits can tell from zero, in a block whose scale is 1."""
    x = np.array([127, 2.0**-17 * 0.999, -(2.0**-17) * 0.999, *[2.0**-17 * 1.001] * 500], np.float32)

    sums = sum(decoded(codec(x.size), encoded(codec(x.size), x, key=(1, step, 0))) for step in range(2000))

    assert sums[1] == sums[2] == 0
    # 1,000,000 chances of 2^-16 each: 15.3 on the average.
    assert 4 <= sums[3:].sum() <= 35


@pytest.mark.parametrize("other", [(8, 3, 1), (7 + 2**32, 3, 1), (7, 4, 1), (7, 3, 2)])
def test_another_key_rounds_otherwise(other: Key) -> None:
    x = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    first, second = (decoded(codec(x.size), encoded(codec(x.size), x, key=key)) for key in (KEY, other))

    # Two chances of the same fraction agree with probability f^2 + (1 - f)^2: two thirds on the average.
    assert 0.6 < np.mean(first == second) < 0.72


@settings(max_examples=50, deadline=None)
@given(bits=st.lists(st.integers(0, 2**32 - 1), max_size=600), key=keys)
def test_every_finite_gradient_arrives(bits: list[int], key: Key) -> None:
    x = np.array(bits, np.uint32).view(np.float32)
    x = x[np.isfinite(x)]

    got = decoded(codec(x.size), encoded(codec(x.size), x, key=key)).astype(np.float64)

    assert np.isfinite(got).all()
    scale = np.repeat(twin(x, key)[0].astype(np.float64), BLOCK)[: x.size]
    # A part in 128 that is missing from 127 scales is one more.
    assert (np.abs(got - x) <= 2 * scale).all()


def test_the_largest_number_of_a_block_is_127_scales_whatever_its_fraction() -> None:
    """By the formula for every fraction that there is, and by the codec for some of them, in all blocks and signs."""
    fractions = np.arange(2**23, 2**24, dtype=np.float32)
    assert (np.rint(fractions * (F(65536) / (fractions / F(127)))) == 127 * 65536).all()

    some = np.random.default_rng(1).choice(fractions, 200)
    x = np.concatenate([np.linspace(-largest, largest, BLOCK, dtype=np.float32) for largest in some])
    for step in range(50):
        words = encoded(codec(x.size), x, key=(1, step, 0))
        quanta = words[some.size :].view(np.int8).reshape(-1, BLOCK)
        assert (quanta[:, 0] == -127).all()
        assert (quanta[:, -1] == 127).all()


def test_a_block_of_the_largest_numbers_comes_out_a_little_smaller() -> None:
    x = np.array([LARGEST, -LARGEST, 0, *[LARGEST / 2] * 500], np.float32)

    got = decoded(codec(x.size), encoded(codec(x.size), x)).astype(np.float64)

    assert got[:3].tolist() == [127 * COARSEST, -127 * COARSEST, 0]
    np.testing.assert_allclose(got[3:].mean(), 127 / 128 * np.float64(LARGEST) / 2, rtol=2e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_refused_by_the_receiver(value: float) -> None:
    x = np.ones(1500, np.float32)
    x[600] = value

    with pytest.raises(PeerError, match=r"int8: the scale of block 1 of 3 is (nan|inf), not from") as refusal:
        decoded(codec(x.size), encoded(codec(x.size), x))
    assert refusal.value.code == "bad-payload"


BELOW, ABOVE = np.nextafter(FINEST, F(0)), np.nextafter(COARSEST, F(np.inf))


@pytest.mark.parametrize("scale", [np.nan, -np.nan, np.inf, -np.inf, -1, -0.0, 0, 1e-45, BELOW, ABOVE, LARGEST])
@pytest.mark.parametrize("block", [0, 2])
def test_a_scale_that_no_encoder_says_is_refused(scale: float, block: int) -> None:
    words = encoded(codec(1500), np.ones(1500, np.float32))
    words[block] = np.array(scale, np.float32).view(np.uint32)

    with pytest.raises(PeerError, match=f"int8: the scale of block {block} of 3 is") as refusal:
        decoded(codec(1500), words)
    assert refusal.value.code == "bad-payload"


@pytest.mark.parametrize("scale", [FINEST, COARSEST])
def test_every_byte_of_the_finest_and_the_coarsest_scale_is_a_finite_number(scale: np.float32) -> None:
    quanta = np.arange(-128, 128)
    words = words_of(np.array([scale], np.float32), quanta)

    assert np.isfinite(decoded(codec(256), words)).all()
    np.testing.assert_array_equal(decoded(codec(256), words), quanta.astype(F) * scale)
