"""powersgd against projections and singular values in float64; its sums against twins that add in the same order."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_trip import KEY, decoded, encoded

from ps_vae.errors import PeerError, UsageError
from ps_vae.nn.noise import philox4x32
from ps_vae.ps.codecs.codec import Codec, Matrix, Vector, Words
from ps_vae.ps.codecs.dot import dot
from ps_vae.ps.codecs.powersgd import powersgd

F = np.float32
LARGEST = np.finfo(np.float32).max
Doubles = npt.NDArray[np.float64]

# Biases between them and remainders at both ends; a single row never gains, two rows do at rank 1 alone.
MATRICES = (Matrix(5, 40, 30), Matrix(1210, 30, 7), Matrix(1420, 2, 3), Matrix(1440, 1, 50), Matrix(1500, 17, 65))
NUMBERS = 2700


def codec(rank: int, *matrices: Matrix, numbers: int | None = None) -> Codec:
    end = matrices[-1].start + matrices[-1].rows * matrices[-1].columns if matrices else 0
    return powersgd(f"powersgd:{rank}", rank, end if numbers is None else numbers, matrices)


def one(rows: int, columns: int, rank: int) -> Codec:
    """For one matrix and nothing else."""
    return codec(rank, Matrix(0, rows, columns))


def factors(words: Words, rows: int, columns: int, rank: int) -> tuple[Vector, Vector]:
    """P and Q of the only matrix."""
    sent = words.view(np.float32)
    return sent[: rows * rank].reshape(rank, rows).T, sent[rows * rank :].reshape(rank, columns).T


def projected(m: Vector, q: Vector) -> Doubles:
    """M as far as it is in the span of M Q."""
    p, _ = np.linalg.qr(m.astype(np.float64) @ q.astype(np.float64))
    return p @ (p.T @ m.astype(np.float64))


def turn(m: Vector, q: Vector) -> float:
    """How much rounding can turn the span of M Q: the more, the more alike or the smaller its columns are."""
    m, q = m.astype(np.float64), q.astype(np.float64)
    least = np.linalg.svd(m @ q, compute_uv=False)[-1]
    return float(np.linalg.norm(m) * np.linalg.norm(q) / least)


def assert_near(got: Vector, expected: Doubles, part: float, whole: Vector | Doubles) -> None:
    """Norms: apart by so much of the whole."""
    assert np.linalg.norm(got.ravel() - expected.ravel()) <= part * np.linalg.norm(whole.astype(np.float64))


shapes = st.tuples(st.integers(1, 60), st.integers(1, 120)).filter(
    lambda shape: shape[0] + shape[1] < shape[0] * shape[1]
)


def rank_that_gains(rows: int, columns: int, rank: int) -> int:
    return max(1, min(rank, (rows * columns - 1) // (rows + columns)))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, rank=st.integers(1, 5), magnitude=st.integers(-30, 30), seed=st.integers(0, 2**32 - 1))
def test_what_is_sent_is_the_part_of_the_matrix_in_the_span_of_m_q(
    shape: tuple[int, int], rank: int, magnitude: int, seed: int
) -> None:
    rank, rng = rank_that_gains(*shape, rank), np.random.default_rng(seed)
    here = one(*shape, rank)
    state = here.initial_state()
    state["q"][:] = q = rng.standard_normal(rank * shape[1])
    state["residual"][:] = left = rng.standard_normal(here.numbers) * 10.0**magnitude
    gradient = (rng.standard_normal(here.numbers) * 10.0**magnitude).astype(F)
    m = (left.astype(F) + gradient).reshape(shape)

    words = encoded(here, gradient, state)

    sent, q = decoded(here, words), q.astype(F).reshape(rank, -1).T
    assert_near(sent, projected(m, q), 2e-6 * turn(m, q), m)
    np.testing.assert_array_equal(state["residual"], m.ravel() - sent)
    np.testing.assert_array_equal(state["q"], factors(words, *shape, rank)[1].T.ravel())


def test_the_first_q_is_what_philox_says() -> None:
    rows, columns, rank, start = 20, 30, 3, 13
    here = codec(rank, Matrix(start, rows, columns))
    m = np.random.default_rng(2).standard_normal(here.numbers).astype(F)
    seed = 0x0123456789ABCDEF
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)

    sent = decoded(here, encoded(here, m, key=(seed, 5, 6)))

    counters = np.array([[j, c, start, 254] for j in range(columns) for c in range(rank)], np.uint32)
    sums = np.array([philox4x32(counter, key).sum(dtype=np.uint64) for counter in counters], np.float64)
    q = ((sums - 2.0**33) / 2**32).reshape(columns, rank)
    matrix = m[start:].reshape(rows, columns)
    assert_near(sent[start:], projected(matrix, q), 2e-5, matrix)
    assert abs(q.mean()) < 0.2
    assert q.std() == pytest.approx(3**-0.5, rel=0.2)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, rank=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_a_matrix_of_no_higher_rank_arrives_whole(shape: tuple[int, int], rank: int, seed: int) -> None:
    rank, rng = rank_that_gains(*shape, rank), np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in shape)
    m, q = (u * rng.uniform(0.5, 1, rank) @ v.T).astype(F), rng.standard_normal((shape[1], rank)).astype(F)
    here = one(*shape, rank)
    state = here.initial_state()
    state["q"][:] = q.T.ravel()

    sent = decoded(here, encoded(here, m.ravel(), state))

    assert_near(sent, m.astype(np.float64), 2e-6 * turn(m, q), m)


def test_a_warm_start_finds_the_nearest_matrix_of_the_rank() -> None:
    rng = np.random.default_rng(8)
    u, v = np.linalg.qr(rng.standard_normal((50, 40)))[0], np.linalg.qr(rng.standard_normal((40, 40)))[0]
    values = 0.7 ** np.arange(40.0)
    m = ((u * values) @ v.T).astype(F).ravel()
    here = one(50, 40, 3)
    state, errors = here.initial_state(), []

    for _ in range(12):
        state["residual"][:] = 0
        errors.append(float(np.linalg.norm(m - decoded(here, encoded(here, m, state)))))

    nearest = np.sqrt(np.sum(values[3:] ** 2))
    assert errors[0] > 1.1 * nearest
    assert errors[-1] == pytest.approx(nearest, rel=1e-3)
    assert all(after <= before * (1 + 1e-5) for before, after in pairwise(errors))


@settings(max_examples=15, deadline=None)
@given(rank=st.integers(1, 4), magnitude=st.integers(-30, 30), seed=st.integers(0, 2**32 - 1))
def test_what_was_sent_and_what_is_left_add_up_to_the_gradients(rank: int, magnitude: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    here, direction = codec(rank, *MATRICES, numbers=NUMBERS), rng.standard_normal(NUMBERS)
    state = here.initial_state()
    gradients, sent = np.zeros(NUMBERS), np.zeros(NUMBERS)
    for _ in range(50):
        gradient = ((direction + rng.standard_normal(NUMBERS)) * 10.0**magnitude).astype(F)
        gradients += gradient
        sent += decoded(here, encoded(here, gradient, state))

    left = sent + state["residual"] - gradients
    assert np.linalg.norm(left) <= 1e-5 * np.linalg.norm(gradients)


def compressed(rank: int) -> list[tuple[Matrix, int]]:
    """Those of MATRICES that are not sent as they are, with their ranks."""
    ranks = [(matrix, min(rank, matrix.rows, matrix.columns)) for matrix in MATRICES]
    return [(each, r) for each, r in ranks if r * (each.rows + each.columns) < each.rows * each.columns]


@pytest.mark.parametrize(
    ("rank", "how_many"), [(1, 4), (4, 3), (5, 3), (6, 2), (13, 2), (14, 1), (17, 1), (18, 0), (10**9, 0)]
)
def test_a_payload_has_as_many_words_as_the_formula_says(rank: int, how_many: int) -> None:
    those = compressed(rank)
    others = NUMBERS - sum(each.rows * each.columns for each, _ in those)

    here = codec(rank, *MATRICES, numbers=NUMBERS)

    assert here.words == others + sum(r * (each.rows + each.columns) for each, r in those)
    assert here.state == {"residual": NUMBERS, "q": sum(r * each.columns for each, r in those)}
    assert here.words <= NUMBERS
    assert len(those) == how_many


@pytest.mark.parametrize("rank", [1, 4, 10**9])
def test_what_is_in_no_matrix_or_in_a_small_one_arrives_as_it_is(rank: int) -> None:
    here = codec(rank, *MATRICES, numbers=NUMBERS)
    state, rng = here.initial_state(), np.random.default_rng(rank)
    as_it_is = np.ones(NUMBERS, bool)
    for each, _ in compressed(rank):
        as_it_is[each.start : each.start + each.rows * each.columns] = False

    for _ in range(3):
        gradient = (rng.standard_normal(NUMBERS) * 1e-3).astype(F)
        sent = decoded(here, encoded(here, gradient, state))

        np.testing.assert_array_equal(sent[as_it_is].view(np.uint32), gradient[as_it_is].view(np.uint32))
        assert not state["residual"][as_it_is].any()
        assert np.count_nonzero(sent != gradient) >= 0.9 * np.count_nonzero(~as_it_is)


def test_each_matrix_is_treated_as_if_it_were_alone() -> None:
    here = codec(2, *MATRICES, numbers=NUMBERS)
    gradient = np.random.default_rng(4).standard_normal(NUMBERS).astype(F)

    sent = decoded(here, encoded(here, gradient))

    for each, rank in compressed(2):
        alone = codec(rank, each)
        part = slice(each.start, each.start + each.rows * each.columns)
        np.testing.assert_array_equal(sent[part], decoded(alone, encoded(alone, gradient[: alone.numbers]))[part])


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
def test_columns_of_p_are_orthonormal_however_alike_those_of_m_q_are(spread: float) -> None:
    rng = np.random.default_rng(9)
    m = (rng.standard_normal((60, 1)) + spread * rng.standard_normal((60, 80))).astype(F)

    p, _ = factors(encoded(one(60, 80, 4), m.ravel()), 60, 80, 4)

    np.testing.assert_allclose(p.T.astype(np.float64) @ p, np.eye(4), atol=2e-6)


def test_a_matrix_of_lower_rank_leaves_columns_of_zeros_that_start_anew() -> None:
    rng = np.random.default_rng(10)
    here = one(20, 40, 3)
    low = np.outer(rng.standard_normal(20), rng.standard_normal(40)).astype(F)
    state = here.initial_state()

    words = encoded(here, low.ravel(), state)

    p, q = factors(words, 20, 40, 3)
    assert [np.linalg.norm(p[:, c]).round(5) for c in range(3)] == [1, 0, 0]
    assert not q[:, 1:].any()
    assert_near(decoded(here, words), low.astype(np.float64), 1e-5, low)

    state["residual"][:] = 0
    full = rng.standard_normal((20, 40)).astype(F)
    p, q = factors(encoded(here, full.ravel(), state), 20, 40, 3)
    np.testing.assert_allclose(p.T @ p, np.eye(3), atol=1e-5)
    assert (np.linalg.norm(q, axis=0) > 1).all()


def test_after_zeros_it_starts_anew() -> None:
    here = one(20, 40, 3)
    state, m = here.initial_state(), np.random.default_rng(11).standard_normal(800).astype(F)

    nothing = encoded(here, np.zeros(800, F), state)

    assert not nothing.any()
    np.testing.assert_array_equal(encoded(here, m, state), encoded(here, m))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 5, 1300, 1421, 2699])
def test_a_gradient_that_is_not_finite_is_refused_by_the_receiver(value: float, at: int) -> None:
    x = np.random.default_rng(1).standard_normal(NUMBERS).astype(F)
    x[at] = value
    here = codec(2, *MATRICES, numbers=NUMBERS)

    with pytest.raises(PeerError, match=r"powersgd:2: .* has a magnitude of (nan|inf)") as refusal:
        decoded(here, encoded(here, x))
    assert refusal.value.code == "bad-payload"


@pytest.mark.parametrize("value", [np.nan, -np.inf, 2.5, -2.5, LARGEST])
@pytest.mark.parametrize(("matrix", "at"), [(0, 0), (0, 79), (1, 140), (2, 214)])
def test_a_p_that_no_encoder_sends_is_refused(value: float, matrix: int, at: int) -> None:
    here = codec(2, *MATRICES, numbers=NUMBERS)
    words = encoded(here, np.ones(NUMBERS, F))
    words.view(np.float32)[at] = value

    with pytest.raises(PeerError, match=f"powersgd:2: P of matrix {matrix} of 3 has a magnitude of") as refusal:
        decoded(here, words)
    assert refusal.value.code == "bad-payload"


@pytest.mark.parametrize("value", [np.nan, np.inf, LARGEST, -LARGEST / 7])
@pytest.mark.parametrize(("matrix", "at"), [(0, 80), (0, 139), (1, 213)])
def test_a_q_too_large_for_finite_products_is_refused(value: float, matrix: int, at: int) -> None:
    here = codec(2, *MATRICES, numbers=NUMBERS)
    words = encoded(here, np.ones(NUMBERS, F))
    words.view(np.float32)[at] = value

    with pytest.raises(PeerError, match=f"powersgd:2: Q of matrix {matrix} of 3 has a magnitude of"):
        decoded(here, words)


def test_the_largest_p_and_q_that_are_read_have_finite_products() -> None:
    words = np.full(3 * 50, LARGEST / 12, F)
    words[: 3 * 20] = 2

    assert decoded(one(20, 30, 3), words.view(np.uint32)).max() == pytest.approx(LARGEST / 2)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_other_numbers_that_are_not_finite_are_refused(value: float) -> None:
    here = codec(2, *MATRICES, numbers=NUMBERS)
    words = encoded(here, np.ones(NUMBERS, F))
    words.view(np.float32)[-1] = value

    with pytest.raises(PeerError, match="powersgd:2: what is in no matrix has a magnitude of"):
        decoded(here, words)


@pytest.mark.parametrize(
    ("rank", "numbers", "matrices", "complaint"),
    [
        (0, 0, (), "a rank of 0"),
        (-1, 0, (), "a rank of -1"),
        (1, 100, (Matrix(0, 0, 5),), "is empty"),
        (1, 100, (Matrix(0, 5, 0),), "is empty"),
        (1, 100, (Matrix(-1, 5, 5),), "begins before 0"),
        (1, 100, (Matrix(0, 5, 5), Matrix(24, 5, 5)), "begins before 25"),
        (1, 100, (Matrix(30, 5, 5), Matrix(0, 5, 5)), "begins before 55"),
        (1, 100, (Matrix(76, 5, 5),), "ends at 101, of 100 numbers"),
    ],
)
def test_words_that_are_off_are_the_users_mistake(
    rank: int, numbers: int, matrices: tuple[Matrix, ...], complaint: str
) -> None:
    with pytest.raises(UsageError, match=f"codec 'powersgd:{rank}': .*{complaint}"):
        powersgd(f"powersgd:{rank}", rank, numbers, matrices)


def summed(x: Vector, y: Vector) -> np.float32:
    """The sum of products in the order that `dot` promises."""
    blocks = x.size // 16
    sums = np.zeros((4, 16), F)
    for block in range(blocks):
        part = slice(16 * block, 16 * block + 16)
        sums[block % 4 if block < blocks // 4 * 4 else 0] += x[part] * y[part]
    folded = (sums[0] + sums[1]) + (sums[2] + sums[3])
    while folded.size > 1:
        folded = folded[: folded.size // 2] + folded[folded.size // 2 :]
    total = folded[0]
    for i in range(16 * blocks, x.size):
        total = total + x[i] * y[i]
    return total


@pytest.mark.parametrize("columns", [0, 1, 15, 16, 17, 63, 64, 65, 79, 80, 128, 144, 400, 401])
def test_a_dot_product_has_the_bits_of_its_order(columns: int) -> None:
    rng = np.random.default_rng(columns)
    a, b = (rng.standard_normal((3, columns)).astype(F) for _ in range(2))

    assert dot(a, 1, b, 2) == summed(a[1], b[2])


def test_words_have_the_bits_of_the_order_of_sums() -> None:
    """A twin in NumPy for one payload of rank 1, where orthonormal columns are a division."""
    rows, columns = 11, 37
    here = one(rows, columns, 1)
    m = np.random.default_rng(6).standard_normal((rows, columns)).astype(F)
    state = here.initial_state()
    state["q"][:] = q = np.random.default_rng(7).standard_normal(columns).astype(F)

    p = np.array([summed(row, q / np.abs(q).max()) for row in m])
    p /= np.abs(p).max()
    p /= np.sqrt(summed(p, p))
    q = np.zeros(columns, F)
    for i in range(rows):
        q = q + p[i] * m[i]

    words = encoded(here, m.ravel(), state, KEY)
    np.testing.assert_array_equal(words, np.concatenate([p, q]).view(np.uint32))
    np.testing.assert_array_equal(decoded(here, words), np.outer(p, q).ravel())
