"""What every codec keeps to, whatever it does to the numbers. A new one is a line in CODECS."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from round_trip import KEY, decoded, encoded, sizes, vectors

from ps_vae.errors import PeerError
from ps_vae.nn.dense import weight_gradient
from ps_vae.ps.codecs.bf16 import bf16
from ps_vae.ps.codecs.codec import Codec, Matrix, State, Vector, Words
from ps_vae.ps.codecs.factors import Products, factors
from ps_vae.ps.codecs.fp16 import fp16
from ps_vae.ps.codecs.int8 import int8
from ps_vae.ps.codecs.onebit import onebit
from ps_vae.ps.codecs.powersgd import powersgd
from ps_vae.ps.codecs.topk import topk

# name -> the codec for so many numbers, and the formula of its words
CODECS: dict[str, tuple[Callable[[int], Codec], Callable[[int], int]]] = {
    "bf16": (lambda n: bf16("bf16", n, ()), lambda n: up(n, 2)),
    "fp16": (lambda n: fp16("fp16", n, ()), lambda n: up(n, 2)),
    "int8": (lambda n: int8("int8", n, ()), lambda n: up(n, 512) + up(n, 4)),
    "onebit": (lambda n: onebit("onebit", n, ()), lambda n: up(n, 512) + up(n, 32)),
    "topk": (lambda n: topk("topk", 0.1, 0.0, n, ()), lambda n: words_of_topk(n, max(1, round(0.1 * n)))),
    "powersgd": (lambda n: powersgd("powersgd", 1, n, eight_rows(n)), lambda n: words_of_powersgd(n)),
    "factors": (lambda n: two_microbatches(n), lambda n: words_of_factors(n)),
}

every_codec = pytest.mark.parametrize("name", list(CODECS))
# A product of finite factors may be too large: the shard sees to that. Its own file says what is refused.
every_codec_of_finite_numbers = pytest.mark.parametrize("name", [name for name in CODECS if name != "factors"])

# Words that say something in one format or another: infinities, NaN, signs, what is too large, what is next to zero.
TELLING = [0, 1, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x80000000, 0x7F7FFFFF, 0x7C007C00]
words_of_a_stranger = st.sampled_from(TELLING) | st.integers(0, 2**32 - 1)


def up(numbers: int, a_word: int) -> int:
    return (numbers + a_word - 1) // a_word


def words_of_topk(numbers: int, k: int) -> int:
    if numbers == 0:
        return 0
    bits = min(range(32), key=lambda bits: k * bits + ((numbers - 1) >> bits))
    return 1 + up(k, 4) + up(k * bits, 32) + up(k + ((numbers - 1) >> bits), 32)


def eight_rows(numbers: int) -> tuple[Matrix, ...]:
    return (Matrix(0, 8, numbers // 8),) if numbers >= 8 else ()


def words_of_powersgd(numbers: int) -> int:
    """Of a matrix of eight rows, and what is left over."""
    columns = numbers // 8
    return min(8 + columns, 8 * columns) + numbers % 8


def two_microbatches(numbers: int) -> Codec:
    return factors("factors", numbers, eight_rows(numbers), Products(1, weight_gradient))(2)


def words_of_factors(numbers: int) -> int:
    """Two rows of inputs and of output gradients, and what is left over."""
    columns = numbers // 8
    return min(2 * (8 + columns), 8 * columns) + numbers % 8


def codec_of(name: str, numbers: int) -> Codec:
    return CODECS[name][0](numbers)


def used_state(codec: Codec, seed: int) -> State:
    """The state of a sender that has sent something: a codec without one has an empty one."""
    state = codec.initial_state()
    gradient = np.random.default_rng(seed).standard_normal(codec.numbers).astype(np.float32)
    encoded(codec, gradient, state)
    return state


def copied(state: State) -> State:
    return {name: vector.copy() for name, vector in state.items()}


def assert_same_state(got: State, expected: State) -> None:
    assert list(got) == list(expected)
    for name, vector in expected.items():
        np.testing.assert_array_equal(got[name].view(np.uint32), vector.view(np.uint32))


def decodes_to_finite_numbers_or_is_refused(codec: Codec, words: Words) -> None:
    refusal: PeerError | None = None
    numbers = np.zeros(0, np.float32)
    try:
        numbers = decoded(codec, words)
    except PeerError as error:
        refusal = error
    assert np.isfinite(numbers).all()
    if refusal is not None:
        assert refusal.code == "bad-payload"
        assert str(refusal).startswith(f"{codec.name}: ")


@every_codec
def test_a_payload_has_as_many_words_as_the_formula_says(name: str) -> None:
    for numbers in [*range(1100), 4999, 5000, 652_832]:
        codec = codec_of(name, numbers)
        assert (codec.name, codec.numbers, codec.words) == (name, numbers, CODECS[name][1](numbers))


@every_codec
@settings(max_examples=20, deadline=None)
@given(numbers=sizes)
def test_a_state_begins_with_zeros(name: str, numbers: int) -> None:
    codec = codec_of(name, numbers)

    state = codec.initial_state()

    assert {key: vector.size for key, vector in state.items()} == codec.state
    assert not any(vector.any() for vector in state.values())


@every_codec_of_finite_numbers
@settings(max_examples=50, deadline=None)
@given(gradient=vectors(), seed=st.integers(0, 99))
def test_what_was_encoded_is_decoded_to_finite_numbers(name: str, gradient: Vector, seed: int) -> None:
    codec = codec_of(name, gradient.size)
    state = used_state(codec, seed)

    for _ in range(3):
        assert np.isfinite(decoded(codec, encoded(codec, gradient, state))).all()
        assert all(np.isfinite(vector).all() for vector in state.values())


@every_codec
@settings(max_examples=30, deadline=None)
@given(gradient=vectors(), seed=st.integers(0, 99), offset=st.integers(0, 15))
def test_gradient_state_and_key_make_the_words_and_nothing_else_does(
    name: str, gradient: Vector, seed: int, offset: int
) -> None:
    """Not what was in the memory before, nor where it begins, nor what was encoded in between."""
    codec = codec_of(name, gradient.size)
    state = used_state(codec, seed)
    elsewhere = {key: moved(vector, offset) for key, vector in state.items()}

    first = encoded(codec, gradient, state)
    encoded(codec, -gradient)
    second = moved(np.zeros(codec.words, np.uint32), offset)
    codec.encode(moved(gradient, offset), elsewhere, KEY, second)

    np.testing.assert_array_equal(second, first)
    assert_same_state(elsewhere, state)
    numbers = moved(np.zeros(codec.numbers, np.float32), offset)
    codec.decode(second, numbers)
    np.testing.assert_array_equal(numbers.view(np.uint32), decoded(codec, first).view(np.uint32))


def moved(vector: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins so many elements after where memory begins."""
    copy = np.empty(vector.size + offset, vector.dtype)[offset:]
    copy[:] = vector
    return copy


@every_codec
@settings(max_examples=30, deadline=None)
@given(gradient=vectors(), seed=st.integers(0, 99))
def test_what_is_read_stays_and_what_lies_around_the_results_too(name: str, gradient: Vector, seed: int) -> None:
    codec = codec_of(name, gradient.size)
    state, before = used_state(codec, seed), gradient.copy()

    words = np.full(codec.words + 40, 0xABCDEF01, np.uint32)
    codec.encode(gradient, state, KEY, words[20:-20])

    np.testing.assert_array_equal(gradient.view(np.uint32), before.view(np.uint32))
    assert {key: vector.size for key, vector in state.items()} == codec.state
    assert (words[:20] == 0xABCDEF01).all()
    assert (words[-20:] == 0xABCDEF01).all()

    sent, state_then = words.copy(), copied(state)
    numbers = np.full(codec.numbers + 40, 12.5, np.float32)
    codec.decode(words[20:-20], numbers[20:-20])

    np.testing.assert_array_equal(words, sent)
    assert_same_state(state, state_then)
    assert (numbers[:20] == 12.5).all()
    assert (numbers[-20:] == 12.5).all()


@every_codec
@pytest.mark.parametrize("numbers", [1, 3, 512, 1025])
def test_zeros_arrive_as_zeros_and_leave_nothing_behind(name: str, numbers: int) -> None:
    codec = codec_of(name, numbers)
    state = codec.initial_state()

    for _ in range(3):
        assert not decoded(codec, encoded(codec, np.zeros(numbers, np.float32), state)).any()
        assert not any(vector.any() for vector in state.values())


@every_codec_of_finite_numbers
@settings(max_examples=30, deadline=None)
@given(
    gradient=vectors(st.integers(1, 2000)), at=st.integers(0, 2**32), value=st.sampled_from([np.nan, np.inf, -np.inf])
)
def test_a_gradient_that_is_not_finite_makes_a_payload_and_no_fault(
    name: str, gradient: Vector, at: int, value: float
) -> None:
    codec = codec_of(name, gradient.size)
    gradient[at % gradient.size] = value

    decodes_to_finite_numbers_or_is_refused(codec, encoded(codec, gradient))


@every_codec_of_finite_numbers
@settings(max_examples=50, deadline=None)
@given(numbers=sizes, seed=st.integers(0, 2**32 - 1), telling=st.sampled_from([0, 0.01, 1]))
def test_any_words_are_finite_numbers_or_refused(name: str, numbers: int, seed: int, telling: float) -> None:
    codec = codec_of(name, numbers)
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**32, codec.words, np.uint32)
    words = np.where(rng.random(codec.words) < telling, rng.choice(np.array(TELLING, np.uint32), codec.words), words)

    decodes_to_finite_numbers_or_is_refused(codec, words)


@every_codec_of_finite_numbers
@settings(max_examples=100, deadline=None)
@given(
    gradient=vectors(st.integers(1, 2000)),
    changes=st.lists(st.tuples(st.integers(0, 2**32), words_of_a_stranger), min_size=1, max_size=3),
)
def test_a_payload_with_some_words_replaced_is_finite_numbers_or_refused(
    name: str, gradient: Vector, changes: list[tuple[int, int]]
) -> None:
    codec = codec_of(name, gradient.size)
    words = encoded(codec, gradient)
    for at, word in changes:
        # The first words, where scales and counts are, as often as all others.
        words[at // 2 % (codec.words if at % 2 else min(codec.words, 4))] = word

    decodes_to_finite_numbers_or_is_refused(codec, words)


@every_codec
@settings(max_examples=50, deadline=None)
@given(numbers=sizes, length=st.integers(0, 6000) | st.sampled_from([-1, 1]), seed=st.integers(0, 99))
def test_a_payload_of_another_length_is_refused_and_nothing_written(
    name: str, numbers: int, length: int, seed: int
) -> None:
    codec = codec_of(name, numbers)
    wrong = codec.words + length if abs(length) == 1 else length
    assume(wrong >= 0 and wrong != codec.words)
    words = np.random.default_rng(seed).integers(0, 2**32, wrong, np.uint32)
    out = np.full(numbers, 12.5, np.float32)

    with pytest.raises(PeerError, match=f"{name}: {wrong} words for {numbers} numbers, which take {codec.words}") as no:
        codec.decode(words, out)
    assert no.value.code == "bad-payload"
    assert (out == 12.5).all()
