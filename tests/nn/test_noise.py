"""Noise: the published vectors, the address of every number, the distributions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ps_vae.errors import UsageError
from ps_vae.nn.noise import Stream, bernoulli, philox4x32, standard_normal, uniform

# Random123, tests/kat_vectors, philox4x32 with 10 rounds
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
NAME = {"seed": 7, "stream": Stream.PRIOR, "step": 3}


def _words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], dtype=np.uint32)


def _names(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int64)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter: str, key: str, expected: str) -> None:
    np.testing.assert_array_equal(philox4x32(_words(counter), _words(key)), _words(expected))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    stream=st.sampled_from(Stream),
    step=st.integers(0, 2**32 - 1),
    row=st.integers(0, 2**56 - 1),
    column=st.integers(0, 30),
)
def test_every_uniform_is_the_word_at_its_documented_address(
    seed: int, stream: Stream, step: int, row: int, column: int
) -> None:
    out = np.empty((1, column + 1), np.float32)
    uniform(out, seed=seed, stream=stream, step=step, rows=np.array([row]))
    counter = [column // 4, row % 2**32, step, stream | (row >> 32) << 8]
    words = philox4x32(np.array(counter, np.uint32), np.array([seed % 2**32, seed >> 32], np.uint32))
    assert out[0, column] == (int(words[column % 4]) >> 8) / 2**24


def test_normals_are_box_muller_of_the_words() -> None:
    out = np.empty((1, 8), np.float64)
    standard_normal(out, **NAME, rows=np.array([5]))
    for column in range(0, 8, 2):
        words = philox4x32(np.array([column // 4, 5, 3, Stream.PRIOR], np.uint32), np.array([7, 0], np.uint32))
        a, b = (int(word) for word in words[column % 4 : column % 4 + 2])
        radius, angle = math.sqrt(-2 * math.log((a + 0.5) / 2**32)), 2 * math.pi * b / 2**32
        expected = [radius * math.cos(angle), radius * math.sin(angle)]
        np.testing.assert_allclose(out[0, column : column + 2], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fill", [uniform, standard_normal])
@settings(max_examples=25, deadline=None)
@given(columns=st.integers(1, 40), order=st.permutations(range(6)), kept=st.integers(1, 6))
def test_noise_of_a_row_depends_on_its_name_alone(fill, columns: int, order: list[int], kept: int) -> None:
    whole = np.empty((6, 40), np.float32)
    fill(whole, **NAME, rows=_names(6) * 1_000_003)
    part = np.empty((kept, columns), np.float32)
    chosen = np.array(order[:kept])
    fill(part, **NAME, rows=chosen * 1_000_003)
    np.testing.assert_array_equal(part, whole[chosen, :columns])


@pytest.mark.parametrize("change", [{"seed": 8}, {"seed": 7 + 2**32}, {"stream": Stream.EVIDENCE}, {"step": 4}])
def test_another_name_gives_other_noise(change: dict[str, int]) -> None:
    first, second = np.empty((4, 64), np.float32), np.empty((4, 64), np.float32)
    uniform(first, **NAME, rows=_names(4))
    uniform(second, **{**NAME, **change}, rows=_names(4))
    assert np.mean(first == second) < 0.01


def test_float64_output_holds_the_same_numbers() -> None:
    for fill in (uniform, standard_normal):
        single, double = np.empty((3, 9), np.float32), np.empty((3, 9), np.float64)
        fill(single, **NAME, rows=_names(3))
        fill(double, **NAME, rows=_names(3))
        np.testing.assert_array_equal(single, double)


def test_uniforms_are_uniform_and_normals_are_normal() -> None:
    out = np.empty((500, 400), np.float32)
    uniform(out, **NAME, rows=_names(500))
    assert stats.kstest(out.ravel(), "uniform").pvalue > 0.01
    standard_normal(out, **NAME, rows=_names(500))
    assert stats.kstest(out.ravel(), "norm").pvalue > 0.01
    correlations = np.corrcoef(out, rowvar=False) - np.eye(400)
    assert np.abs(correlations).max() < 6 / math.sqrt(500)


def test_bernoulli_in_place_is_the_uniforms_below_the_probabilities() -> None:
    probabilities = np.linspace(0, 1, 4 * 101, dtype=np.float32).reshape(4, 101)
    uniforms = np.empty_like(probabilities)
    uniform(uniforms, **NAME, rows=_names(4))
    drawn = probabilities.copy()
    bernoulli(drawn, drawn, **NAME, rows=_names(4))
    np.testing.assert_array_equal(drawn, uniforms < probabilities)


def test_probability_zero_never_happens_and_one_always() -> None:
    out = np.empty((1000, 1000), np.float32)
    for certain in (0, 1):
        out[:] = certain
        bernoulli(out, out, **NAME, rows=_names(1000))
        assert np.all(out == certain)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 2**64}, {"step": -1}, {"step": 2**32}])
def test_a_number_outside_of_its_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=str(*wrong.values())):
        uniform(np.empty((2, 2), np.float32), **{**NAME, **wrong}, rows=_names(2))


@pytest.mark.parametrize("row", [-1, -(2**63), 2**56, 2**62 + 5])
def test_a_row_whose_name_has_no_noise_of_its_own_is_refused(row: int) -> None:
    names = np.array([0, 2**56 - 1, row])
    for fill in (uniform, standard_normal):
        with pytest.raises(UsageError, match=rf"{row}\b.*names from 0 to 2\^56 - 1"):
            fill(np.empty((3, 2), np.float32), **NAME, rows=names)
    with pytest.raises(UsageError, match=rf"{row}\b"):
        bernoulli(np.full((3, 2), 0.5, np.float32), np.empty((3, 2), np.float32), **NAME, rows=names)
    uniform(np.empty((2, 2), np.float32), **NAME, rows=names[:2])


def test_every_row_needs_a_name() -> None:
    with pytest.raises(UsageError, match="one name for each row"):
        uniform(np.empty((2, 2), np.float32), **NAME, rows=_names(3))
