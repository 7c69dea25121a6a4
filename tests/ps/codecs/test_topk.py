"""topk against a twin in NumPy, word for word, over many payloads; its parts against sorting and counting."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_trip import decoded, encoded, vectors

from ps_vae.errors import PeerError, UsageError
from ps_vae.ps.codecs.codec import Codec, Vector, Words
from ps_vae.ps.codecs.positions import low_bits, position_words, read_positions, write_positions
from ps_vae.ps.codecs.selection import SAMPLE, gather, kth_largest, sample_starts
from ps_vae.ps.codecs.topk import topk

F = np.float32
LARGEST = np.finfo(np.float32).max
RATIOS = st.sampled_from([1e-9, 0.001, 0.01, 0.1, 0.3, 0.9, 1.0])


def codec(numbers: int, ratio: float = 0.1, momentum: float = 0.0) -> Codec:
    return topk("topk", ratio, momentum, numbers, ())


# Every magnitude with 3 bits of fraction that a float32 can have: eighths of the smallest normal number, then eight in
# each binade.
LADDER = np.array([c * 2.0**-129 if c < 8 else (1 + c % 8 / 8) * 2.0 ** (c // 8 - 127) for c in range(0x7F8)])
MIDDLES = (LADDER[1:] + LADDER[:-1]) / 2


def rungs(x: Vector) -> npt.NDArray[np.int64]:
    return np.searchsorted(MIDDLES, np.abs(x).astype(np.float64), side="right")


def packed(bits: list[int]) -> Words:
    return np.packbits(np.array(bits + [0] * (-len(bits) % 32), np.uint8), bitorder="little").view("<u4")


def packed_positions(places: list[int], b: int, size: int) -> tuple[Words, Words]:
    low = [place >> bit & 1 for place in places for bit in range(b)]
    high = [0] * (len(places) + (size - 1 >> b))
    for j, place in enumerate(places):
        high[(place >> b) + j] = 1
    return packed(low), packed(high)


def twin(p: Vector, k: int) -> tuple[Words, Vector, list[int]]:
    """Words, decoded numbers, and which those are."""
    places = sorted(np.lexsort((np.arange(p.size), -np.abs(p)))[:k].tolist())
    top = int(rungs(p).max())
    rung = rungs(p[places])
    code = np.where(rung > 0, np.maximum(rung - top + 127, 0), 0)
    sent = np.zeros(p.size, np.float32)
    sent[places] = np.where(code > 0, np.copysign(LADDER[rung], p[places]), 0)
    values = np.where(code > 0, code + 128 * np.signbit(p[places]), 0).astype(np.uint8)
    b = min(range(40), key=lambda b: k * b + (p.size - 1 >> b))
    parts = [np.array([LADDER[top]], np.float32).view(np.uint32), np.pad(values, (0, -k % 4)).view("<u4")]
    return np.concatenate([*parts, *packed_positions(places, b, p.size)]), sent, places


def assert_same_bits(got: Vector, expected: Vector) -> None:
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


def check_against_the_twin(gradients: list[Vector], ratio: float, momentum: float) -> None:
    here = codec(gradients[0].size, ratio, momentum)
    k = max(1, round(ratio * here.numbers))
    state, residual, velocity = here.initial_state(), np.zeros(here.numbers, F), np.zeros(here.numbers, F)
    for gradient in gradients:
        velocity = F(momentum) * velocity + gradient if momentum else gradient.copy()
        p = residual + velocity
        words, sent, places = twin(p, k)
        residual = p - sent
        velocity[places] = 0

        got = encoded(here, gradient, state)

        np.testing.assert_array_equal(got, words)
        assert_same_bits(decoded(here, got), sent)
        np.testing.assert_array_equal(state["residual"], residual)
        if momentum:
            np.testing.assert_array_equal(state["velocity"], velocity)


@settings(max_examples=60, deadline=None)
@given(
    gradients=st.integers(1, 5000).flatmap(lambda size: st.lists(vectors(st.just(size)), min_size=1, max_size=4)),
    ratio=RATIOS,
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_words_decoded_numbers_and_state_are_those_of_the_twin(
    gradients: list[Vector], ratio: float, momentum: float
) -> None:
    check_against_the_twin(gradients, ratio, momentum)


@pytest.mark.parametrize("numbers", [SAMPLE, SAMPLE + 1, 20_011])
@pytest.mark.parametrize(("ratio", "momentum"), [(0.001, 0.9), (0.01, 0.0), (0.5, 0.0)])
def test_a_vector_of_which_a_sample_is_looked_at_is_encoded_as_the_twin_does(
    numbers: int, ratio: float, momentum: float
) -> None:
    rng = np.random.default_rng(numbers)
    check_against_the_twin([rng.standard_cauchy(numbers).astype(F) for _ in range(3)], ratio, momentum)


def in_the_sample(numbers: int) -> npt.NDArray[np.int64]:
    return (sample_starts(numbers)[:, np.newaxis] + np.arange(16)).ravel()


@pytest.mark.parametrize(("numbers", "ratio"), [(20_000, 0.5), (150_000, 0.1), (150_000, 0.001)])
@pytest.mark.parametrize("seen", ["large", "small", "zero"])
def test_a_sample_that_misleads_changes_nothing(numbers: int, ratio: float, seen: str) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal(numbers).astype(F)
    x[in_the_sample(numbers)] *= {"large": F(1000), "small": F(0.001), "zero": F(0)}[seen]

    check_against_the_twin([x], ratio, 0.0)


@pytest.mark.parametrize("value", [0.0, -0.0, 2.5, -1e-45, LARGEST])
def test_of_equal_magnitudes_the_first_are_sent(value: float) -> None:
    x = np.full(30_000, value, F)
    x[::3] *= -1

    words = encoded(codec(x.size, 0.01), x)

    expected, sent, places = twin(x, 300)
    assert places == list(range(300))
    np.testing.assert_array_equal(words, expected)
    np.testing.assert_array_equal(decoded(codec(x.size, 0.01), words), sent)


@pytest.mark.parametrize("numbers", [1, 2, 7, 100, 4999, 652_832])
@pytest.mark.parametrize("ratio", [1e-9, 0.001, 0.01, 0.25, 1.0])
def test_a_payload_has_as_many_words_as_the_formula_says(numbers: int, ratio: float) -> None:
    k = max(1, round(ratio * numbers))
    bits = {b: (k * b, k + (numbers - 1 >> b)) for b in range(40)}
    b = min(bits, key=lambda b: sum(bits[b]))

    assert codec(numbers, ratio).words == 1 + sum(math.ceil(part / 32) for part in (8 * k, *bits[b]))


def test_the_bits_a_number_takes_are_those_of_the_docstring() -> None:
    numbers = 652_832
    for ratio, bits, times in [(0.01, 16.6, 193), (0.001, 20.0, 1592)]:
        words = codec(numbers, ratio).words
        assert numbers // words == times
        assert 32 * words / (ratio * numbers) == pytest.approx(bits, rel=0.01)


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1000, 10**7), part=st.floats(1e-4, 0.02))
def test_a_position_takes_two_bits_more_than_the_logarithm(size: int, part: float) -> None:
    count = max(50, int(size * part))
    b = low_bits(count, size)

    more = (count * b + count + (size - 1 >> b)) / count - math.log2(size / count)

    assert 1.91 - 1 / count <= more <= 2
    assert sum(position_words(count, size)) <= (more + math.log2(size / count)) * count / 32 + 2


def test_nothing_is_sent_of_nothing() -> None:
    assert codec(0).words == 0
    assert decoded(codec(0), encoded(codec(0), np.zeros(0, F))).size == 0


@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(1, 5000) | st.just(20_000),
    ratio=st.sampled_from([0.001, 0.01, 0.2]),
    magnitude=st.integers(-30, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_was_sent_and_what_is_left_add_up_to_the_gradients(
    size: int, ratio: float, magnitude: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    here, direction = codec(size, ratio), rng.standard_normal(size)
    state = here.initial_state()
    gradients, sent = np.zeros(size), np.zeros(size)
    for _ in range(50):
        gradient = ((direction + rng.standard_normal(size)) * 10.0**magnitude).astype(F)
        gradients += gradient
        sent += decoded(here, encoded(here, gradient, state))

    left = sent + state["residual"] - gradients
    assert np.linalg.norm(left) <= 1e-5 * np.linalg.norm(gradients)


def test_what_is_not_sent_gathers_momentum_and_what_is_sent_loses_it() -> None:
    here = codec(10, 0.1, 0.5)
    state = here.initial_state()
    gradient = np.array([8, 1, 0, 0, 0, 0, 0, 0, 0, 0], F)

    sent = [decoded(here, encoded(here, gradient, state)) for _ in range(3)]

    # Of the first number each time all there is; of the second 1 + 1.5 + 1.75 have come together.
    assert [numbers[0] for numbers in sent] == [8, 8, 8]
    assert (state["residual"][1], state["velocity"][1]) == (4.25, 1.75)
    assert (state["residual"][0], state["velocity"][0]) == (0, 0)


@settings(max_examples=50, deadline=None)
@given(x=vectors(st.integers(1, 2000)))
def test_a_number_is_a_sixteenth_off_or_next_to_nothing(x: Vector) -> None:
    sent = decoded(codec(x.size, 1.0), encoded(codec(x.size, 1.0), x)).astype(np.float64)

    off, magnitude = np.abs(sent - x), np.abs(x.astype(np.float64))
    assert (off <= np.maximum(magnitude / 16, 1.25 * 2.0**-16 * magnitude.max())).all()


keys = st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 5) | st.sampled_from([2**31 - 1, 2**22, 2**11]), min_size=1)


@settings(max_examples=100, deadline=None)
@given(keys=keys, k=st.integers(0, 10**6))
def test_the_kth_largest_and_its_equals_are_those_of_sorting(keys: list[int], k: int) -> None:
    k = 1 + k % len(keys)

    threshold, ties = kth_largest(np.array(keys, np.int32), k)

    assert threshold == sorted(keys)[-k]
    assert ties == k - sum(key > threshold for key in keys)


@settings(max_examples=50, deadline=None)
@given(x=vectors(), floor=st.integers(0, 2**31 - 1), first=st.integers(0, 100))
def test_what_is_gathered_is_all_that_is_not_below_the_floor(x: Vector, floor: int, first: int) -> None:
    magnitudes = np.abs(x).view(np.int32)
    floor = int(magnitudes[floor % x.size]) if x.size and floor % 2 else floor
    places, found_keys = np.zeros(x.size + 3, np.int64), np.zeros(x.size + 3, np.int32)

    found = gather(x.view(np.int32), first, np.int32(floor), places, found_keys, 3)

    expected = np.flatnonzero(magnitudes >= floor)
    np.testing.assert_array_equal(places[3:found], expected + first)
    np.testing.assert_array_equal(found_keys[3:found], magnitudes[expected])


@settings(max_examples=100, deadline=None)
@given(places=st.sets(st.integers(0, 300) | st.integers(0, 10**6), min_size=1), more=st.integers(0, 500))
def test_positions_are_written_as_the_twin_does_and_read_again(places: set[int], more: int) -> None:
    ascending, size = sorted(places), max(places) + 1 + more
    b = low_bits(len(places), size)
    low_words, high_words = position_words(len(places), size)
    low, high = np.full(low_words, 7, np.uint32), np.full(high_words, 7, np.uint32)
    back = np.zeros(len(places), np.int64)

    write_positions(np.array(ascending, np.int64), b, low, high)

    for got, expected in zip((low, high), packed_positions(ascending, b, size), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert read_positions(low, high, b, size, back) == (len(places), -1)
    assert back.tolist() == ascending


def payload_with(places: list[int], numbers: int, k: int) -> Words:
    """A payload of these positions, whatever they are."""
    here = codec(numbers, k / numbers)
    b = low_bits(k, numbers)
    low, high = packed_positions(places, b, numbers + (1 << b) * (len(places) + 4))
    words = np.zeros(here.words, np.uint32)
    words[0] = F(1).view(np.uint32)
    low_words, high_words = position_words(k, numbers)
    words[-high_words - low_words : -high_words] = np.resize(low, low_words)
    words[-high_words:] = high[:high_words]
    return words


@pytest.mark.parametrize(
    ("places", "complaint"),
    [
        ([1, 60, 60, 90], "position 2 of 4 is 60, of 99 numbers, after 60"),
        ([1, 60, 59, 90], "position 2 of 4 is 59, of 99 numbers, after 60"),
        ([1, 60, 70, 99], "position 3 of 4 is 99, of 99 numbers, after 70"),
        ([99, 100, 101, 102], "position 0 of 4 is 99, of 99 numbers, after none"),
        ([1, 60, 70], "3 positions, where 4 are sent"),
        ([], "0 positions, where 4 are sent"),
        ([1, 60, 70, 90, 95], "more positions, where 4 are sent"),
    ],
)
def test_positions_that_do_not_ascend_or_are_none_or_too_many_are_refused(places: list[int], complaint: str) -> None:
    with pytest.raises(PeerError, match=f"topk: {complaint}") as refusal:
        decoded(codec(99, 4 / 99), payload_with(places, 99, 4))
    assert refusal.value.code == "bad-payload"


def test_positions_that_ascend_are_read() -> None:
    words = payload_with([1, 60, 70, 98], 99, 4)
    words[1] = 0xFF7F0001  # bytes 0x01, 0x00, 0x7F, 0xFF

    sent = decoded(codec(99, 4 / 99), words)

    assert np.flatnonzero(sent).tolist() == [1, 70, 98]
    assert (sent[1], sent[70], sent[98]) == (1.25 * 2.0**-16, 1, -1)


@pytest.mark.parametrize("largest", [np.nan, -np.nan, np.inf, -np.inf, -1, -0.0, 1.0625, 1e-45])
def test_a_largest_magnitude_that_no_encoder_sends_is_refused(largest: float) -> None:
    words = encoded(codec(99), np.ones(99, F))
    words[0] = np.array(largest, F).view(np.uint32)

    with pytest.raises(PeerError, match="topk: the largest magnitude is ") as refusal:
        decoded(codec(99), words)
    assert refusal.value.code == "bad-payload"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("numbers", [100, 30_000])
def test_a_gradient_that_is_not_finite_is_refused_by_the_receiver(value: float, momentum: float, numbers: int) -> None:
    x = np.random.default_rng(1).standard_normal(numbers).astype(F)
    x[60] = value

    with pytest.raises(PeerError, match=r"topk: the largest magnitude is (nan|inf)"):
        decoded(codec(numbers, 0.1, momentum), encoded(codec(numbers, 0.1, momentum), x))


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, np.nan, np.inf])
def test_a_ratio_that_is_none_is_the_users_mistake(ratio: float) -> None:
    with pytest.raises(UsageError, match="codec 'topk': a ratio of"):
        codec(0, ratio)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, np.nan, np.inf])
def test_a_momentum_that_would_not_end_is_the_users_mistake(momentum: float) -> None:
    with pytest.raises(UsageError, match="codec 'topk': a momentum of"):
        codec(0, 0.1, momentum)
