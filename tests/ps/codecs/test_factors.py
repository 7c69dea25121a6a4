"""factors: against products and sums written out."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_trip import KEY, decoded, encoded

from ps_vae.errors import PeerError, UsageError
from ps_vae.nn.dense import weight_gradient
from ps_vae.ps.codecs.codec import Codec, Matrix, Vector, Words
from ps_vae.ps.codecs.factors import Products, factors

# Matrices among the numbers of a slice, first element, rows, columns; the second has no number after the first.
MATRICES = (Matrix(3, 7, 9), Matrix(66, 5, 20), Matrix(170, 2, 2))
NUMBERS = 180

Pairs = list[tuple[Vector, Vector]]
Integers = Callable[[tuple[int, ...]], Vector]


def codec_of(r: int, microbatches: int, multiply: Callable[[Vector, Vector, Vector], None] = weight_gradient) -> Codec:
    return factors("factors", NUMBERS, MATRICES, Products(r, multiply))(microbatches)


def factored_gradient(r: int, microbatches: int, draw: Integers, unread: float) -> tuple[Vector, list[Pairs | None]]:
    """A vector in factored form, and of each matrix its factors, or None where it is there itself."""
    vector = draw((NUMBERS,))
    pairs: list[Pairs | None] = []
    for matrix in MATRICES:
        place = vector[matrix.start : matrix.start + matrix.rows * matrix.columns]
        if microbatches * r * (matrix.rows + matrix.columns) >= matrix.rows * matrix.columns:
            pairs.append(None)
            continue
        here = [(draw((r, matrix.rows)), draw((r, matrix.columns))) for _ in range(microbatches)]
        numbers = np.concatenate([factor.ravel() for pair in here for factor in pair])
        place[: numbers.size] = numbers
        place[numbers.size :] = unread
        pairs.append(here)
    return vector, pairs


def dense_gradient(vector: Vector, pairs: list[Pairs | None]) -> Vector:
    """The twin: products of each microbatch; pairs of neighbours are added, an odd one moves up as it is."""
    dense = vector.copy()
    for matrix, here in zip(MATRICES, pairs, strict=True):
        if here is None:
            continue
        level = [naive_product(a, d) for a, d in here]
        while len(level) > 1:
            odd = level[len(level) // 2 * 2 :]
            level = [left + right for left, right in zip(level[::2], level[1::2], strict=False)] + odd
        dense[matrix.start : matrix.start + matrix.rows * matrix.columns] = level[0].ravel()
    return dense


def naive_product(a: Vector, d: Vector) -> Vector:
    out = np.zeros((a.shape[1], d.shape[1]), np.float32)
    for row in range(a.shape[0]):
        out += a[row][:, None] * d[row][None, :]
    return out


def naively(a: Vector, d: Vector, out: Vector) -> None:
    out[:] = naive_product(a, d)


@st.composite
def forms(draw: st.DrawFn) -> tuple[int, int]:
    return draw(st.integers(1, 4)), draw(st.integers(1, 6))


@settings(max_examples=80, deadline=None)
@given(form=forms(), seed=st.integers(0, 2**32 - 1))
def test_factors_of_whole_numbers_decode_to_the_sum_of_their_products(form: tuple[int, int], seed: int) -> None:
    """Sums of small whole numbers are exact in any order, with any product."""
    rng = np.random.default_rng(seed)
    vector, pairs = factored_gradient(*form, lambda shape: rng.integers(-9, 10, shape).astype(np.float32), np.nan)

    codec = codec_of(*form)

    np.testing.assert_array_equal(decoded(codec, encoded(codec, vector)), dense_gradient(vector, pairs))


@settings(max_examples=80, deadline=None)
@given(form=forms(), seed=st.integers(0, 2**32 - 1))
def test_products_are_added_in_the_order_of_the_tree(form: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    vector, pairs = factored_gradient(*form, lambda shape: rng.standard_normal(shape).astype(np.float32), np.nan)

    codec = codec_of(*form, naively)
    got = decoded(codec, encoded(codec, vector))

    np.testing.assert_array_equal(got.view(np.uint32), dense_gradient(vector, pairs).view(np.uint32))


@given(form=forms(), seed=st.integers(0, 99))
def test_what_a_matrix_leaves_of_its_place_is_not_sent(form: tuple[int, int], seed: int) -> None:
    words = []
    for unread in (0.0, np.inf):
        rng = np.random.default_rng(seed)
        vector, _ = factored_gradient(*form, lambda shape, rng=rng: rng.random(shape).astype(np.float32), unread)
        words.append(encoded(codec_of(*form), vector))

    np.testing.assert_array_equal(words[0], words[1])
    assert np.isfinite(words[1].view(np.float32)).all()


@given(form=forms())
def test_words_are_the_numbers_less_what_factors_save(form: tuple[int, int]) -> None:
    r, microbatches = form
    saved = sum(max(0, m.rows * m.columns - microbatches * r * (m.rows + m.columns)) for m in MATRICES)

    assert codec_of(r, microbatches).words == NUMBERS - saved


def test_larger_blocks_never_take_fewer_words() -> None:
    words = [codec_of(1, microbatches).words for microbatches in range(1, 30)]

    assert words == sorted(words)
    assert words[0] < NUMBERS
    assert words[-1] == NUMBERS


@pytest.mark.parametrize(("rows", "columns", "even"), [(784, 400, 264), (400, 40, 36), (20, 400, 19), (400, 784, 264)])
def test_factors_are_sent_up_to_the_rows_where_they_break_even(rows: int, columns: int, even: int) -> None:
    numbers = rows * columns
    words = [
        factors("factors", numbers, (Matrix(0, rows, columns),), Products(r, weight_gradient))(1).words
        for r in (even, even + 1)
    ]

    assert words == [even * (rows + columns), numbers]
    assert words[0] < numbers


@settings(max_examples=100, deadline=None)
@given(form=forms(), at=st.integers(0, 2**32), value=st.sampled_from([0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF]))
def test_a_word_that_is_not_finite_is_refused_before_anything_is_multiplied_or_written(
    form: tuple[int, int], at: int, value: int
) -> None:
    multiplied: list[Vector] = []
    codec = codec_of(*form, lambda a, d, out: multiplied.append(a))
    words = np.zeros(codec.words, np.uint32)
    words[at % codec.words] = value
    out = np.full(NUMBERS, 12.5, np.float32)

    with pytest.raises(
        PeerError, match=f"^factors: word {at % codec.words} of {codec.words} is -?(inf|nan)$"
    ) as refusal:
        codec.decode(words, out)

    assert refusal.value.code == "bad-payload"
    assert not multiplied
    assert (out == 12.5).all()


@settings(max_examples=60, deadline=None)
@given(form=forms(), length=st.integers(0, 2 * NUMBERS), seed=st.integers(0, 99))
def test_words_for_a_block_of_another_length_are_refused(form: tuple[int, int], length: int, seed: int) -> None:
    codec = codec_of(*form)
    wrong = length if length != codec.words else length + 1
    words = np.random.default_rng(seed).integers(0, 2**32, wrong, np.uint32)
    out = np.full(NUMBERS, 12.5, np.float32)

    with pytest.raises(PeerError) as refusal:
        codec.decode(words, out)

    assert refusal.value.code == "bad-payload"
    assert str(refusal.value) == f"factors: {wrong} words for {NUMBERS} numbers, which take {codec.words}"
    assert (out == 12.5).all()


@settings(max_examples=60, deadline=None)
@given(form=forms(), seed=st.integers(0, 2**32 - 1), wild=st.sampled_from([0, 0.01, 0.5]))
def test_any_words_are_refused_or_the_sum_of_their_products(form: tuple[int, int], seed: int, wild: float) -> None:
    """Also where it is not finite: then it is for the receiver to see."""
    codec, rng = codec_of(*form), np.random.default_rng(seed)
    words = rng.standard_normal(codec.words).astype(np.float32).view(np.uint32)
    words = np.where(rng.random(codec.words) < wild, rng.integers(0, 2**32, codec.words, np.uint32), words)
    refusal, got = decoded_or_refused(codec, words)

    assert (refusal is not None) == (not np.isfinite(words.view(np.float32)).all())
    if refusal is None:
        exact, magnitude = in_double_precision(form, words.view(np.float32).astype(np.float64))
        fits = magnitude < np.finfo(np.float32).max
        # Higham (2002), section 3.1: each term goes through as many roundings as the sum has terms, at most.
        bound = 1.01 * 2.0**-24 * form[0] * form[1] * magnitude + 2.0**-149 * form[0] * form[1]
        assert (np.abs(got - exact)[fits] <= bound[fits]).all()


def decoded_or_refused(codec: Codec, words: Words) -> tuple[str | None, Vector]:
    try:
        return None, decoded(codec, words)
    except PeerError as error:
        return error.code, np.zeros(0, np.float32)


def in_double_precision(form: tuple[int, int], sent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the words stand for, read one after the other, and the sum of the terms' magnitudes."""
    r, microbatches = form
    exact, magnitude, element, word = np.zeros(NUMBERS), np.zeros(NUMBERS), 0, 0

    def as_it_is(until: int) -> None:
        nonlocal element, word
        count = until - element
        exact[element:until] = sent[word : word + count]
        magnitude[element:until] = np.abs(exact[element:until])
        element, word = until, word + count

    for matrix in MATRICES:
        if microbatches * r * (matrix.rows + matrix.columns) >= matrix.rows * matrix.columns:
            continue
        as_it_is(matrix.start)
        element += matrix.rows * matrix.columns
        for _ in range(microbatches):
            a = sent[word : word + r * matrix.rows].reshape(r, matrix.rows)
            word += a.size
            d = sent[word : word + r * matrix.columns].reshape(r, matrix.columns)
            word += d.size
            exact[matrix.start : element] += np.ravel(a.T @ d)
            magnitude[matrix.start : element] += np.ravel(np.abs(a).T @ np.abs(d))
    as_it_is(NUMBERS)
    assert word == sent.size
    return exact, magnitude


def test_codecs_of_one_slice_use_the_same_memory_again() -> None:
    of_block = factors("factors", 80, (Matrix(0, 8, 10),), Products(1, weight_gradient))
    rng = np.random.default_rng(0)
    gradients = {m: rng.standard_normal(80).astype(np.float32) for m in (1, 2, 3, 4)}
    first = {m: decoded(of_block(m), encoded(of_block(m), gradient)) for m, gradient in gradients.items()}

    for m in (4, 2, 3, 1, 4):
        np.testing.assert_array_equal(decoded(of_block(m), encoded(of_block(m), gradients[m])), first[m])
    assert of_block(3) is of_block(3)


@pytest.mark.parametrize(
    ("matrices", "words"),
    [
        ((Matrix(0, 2, 0),), "is empty"),
        ((Matrix(0, 4, 4), Matrix(15, 2, 2)), "begins before 16"),
        ((Matrix(90, 3, 4),), "ends at 102, of 100 numbers"),
    ],
)
def test_matrices_that_cannot_be_are_refused(matrices: tuple[Matrix, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        factors("factors", 100, matrices, Products(1, weight_gradient))


def test_an_encoding_has_no_state_and_does_not_depend_on_the_key() -> None:
    codec = codec_of(2, 1)
    gradient = np.arange(NUMBERS, dtype=np.float32)

    assert codec.state == {}
    other = np.zeros(codec.words, np.uint32)
    codec.encode(gradient, {}, (KEY[0] + 1, KEY[1] + 1, KEY[2] + 1), other)
    np.testing.assert_array_equal(other, encoded(codec, gradient))
