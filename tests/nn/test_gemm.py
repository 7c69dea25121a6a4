"""Our matrix products, bit for bit, against one chain of fused multiply-adds an element, in float64 and corrected."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.errors import UsageError
from ps_vae.nn.arrays import Floats, aligned_zeros
from ps_vae.nn.gemm import product, product_left_transposed, product_right_transposed
from ps_vae.nn.simd import LANES
from ps_vae.nn.tile import TILE_ROWS, TILE_VECTORS

WIDTH = TILE_VECTORS * LANES

# Rows, terms, columns: panels that are copied because many rows follow or because rows lie pages apart, and blocks of
# k in all three products, with a rest everywhere.
LARGE = [(261, 530, WIDTH + 5), (4 * TILE_ROWS + 3, 529, 1024), (LANES + 1, 1027, TILE_ROWS + 3), (90, 600, 2)]


def fused(a: Floats, b: Floats, c: Floats) -> Floats:
    """a b + c of float32 arrays, rounded once.

    The product is exact in float64; so is the sum together with its error (Knuth's TwoSum). Where there is an error
    the sum is made odd, towards the exact value, and an odd sum rounds to float32 as the exact one does, because
    float64 has more than two binary digits to spare (Boldo & Melquiond 2008, round to odd).
    """
    product, addend = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    towards = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    is_odd = (total.view(np.int64) & 1) == 1
    return np.where((error != 0) & ~is_odd, towards, total).astype(np.float32)


def chain(a: Floats, b: Floats) -> Floats:
    """Each element of a b as one chain of fused multiply-adds."""
    out = np.zeros((len(a), b.shape[1]), np.float32)
    for k in range(len(b)):
        out = fused(a[:, k, None], b[None, k], out)
    return out


def three_products(a: Floats, b: Floats) -> list[Floats]:
    """a b by each of the functions, in arrays with a guard of sevens before and after."""
    results = []
    left, right = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    for function, x, y in (
        (product, a, b),
        (product_left_transposed, left, b),
        (product_right_transposed, a, right),
    ):
        guarded = np.full((len(a) + 2, b.shape[1]), 7, np.float32)
        function(x, y, guarded[1:-1])
        np.testing.assert_array_equal(guarded[[0, -1]], np.full((2, b.shape[1]), 7))
        results.append(guarded[1:-1])
    return results


def assert_same_bits(result: Floats, expected: Floats) -> None:
    np.testing.assert_array_equal(result.view(np.uint32), expected.view(np.uint32))


def normals(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def shifted(array: Floats, numbers: int) -> Floats:
    """A copy that starts `numbers` numbers after a 64-byte boundary."""
    copy = aligned_zeros((array.size + numbers,))[numbers:].reshape(array.shape)
    copy[:] = array
    return copy


def test_the_twin_rounds_once() -> None:
    """Against exact fractions, among them sums that lie just beside the middle between two numbers of float32."""
    draw = np.random.default_rng(0)
    a, b, c = (draw.standard_normal(2000).astype(np.float32) for _ in range(3))
    a[:500], b[:500] = 1 + 2.0**-12, 1 - 2.0**-12
    c[:500] = np.float32(2.0) ** draw.integers(-30, 30, 500)
    for x, y, z, result in zip(a, b, c, fused(a, b, c), strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        distance = abs(Fraction(float(result)) - exact)
        for neighbour in (np.nextafter(result, np.float32(-np.inf)), np.nextafter(result, np.float32(np.inf))):
            other = abs(Fraction(float(neighbour)) - exact)
            assert distance < other or (distance == other and int(result.view(np.int32)) % 2 == 0), (x, y, z)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.integers(0, 2 * WIDTH + 3),
    terms=st.integers(0, 3 * LANES + 2),
    columns=st.integers(0, 2 * WIDTH + 3),
    scale=st.sampled_from([1.0, 2.0**-66]),  # whose square is beyond the normal numbers
    seed=st.integers(0, 1000),
)
def test_product_is_one_chain_of_fused_multiply_adds(
    rows: int, terms: int, columns: int, scale: float, seed: int
) -> None:
    a, b = (
        np.float32(scale) * normals(rows, terms, seed=seed),
        np.float32(scale) * normals(terms, columns, seed=seed + 1),
    )
    expected = chain(a, b)
    for result in three_products(a, b):
        assert_same_bits(result, expected)


@pytest.mark.parametrize(("rows", "terms", "columns"), LARGE)
def test_blocks_and_copied_panels_go_on_with_the_same_chain(rows: int, terms: int, columns: int) -> None:
    a, b = normals(rows, terms), normals(terms, columns, seed=1)
    expected = chain(a, b)
    for result in three_products(a, b):
        assert_same_bits(result, expected)


def test_bits_do_not_depend_on_the_rows_and_columns_beside() -> None:
    a, b = normals(2 * WIDTH + 1, 70), normals(70, 2 * WIDTH + 1, seed=1)
    whole = three_products(a, b)[0]
    for count in (1, TILE_ROWS - 1, TILE_ROWS, LANES - 1, LANES, LANES + 1, WIDTH, WIDTH + LANES):
        for part in (slice(0, count), slice(5, 5 + count)):
            for result in three_products(a[part], b):
                assert_same_bits(result, whole[part])
            for result in three_products(a, np.ascontiguousarray(b[:, part])):
                assert_same_bits(result, np.ascontiguousarray(whole[:, part]))


@pytest.mark.parametrize("numbers", [1, 3, 8])
def test_bits_do_not_depend_on_alignment(numbers: int) -> None:
    a, b = normals(37, 65), normals(65, 75, seed=1)
    out = shifted(np.zeros((37, 75), np.float32), numbers + 2)
    product(shifted(a, numbers), shifted(b, numbers + 1), out)
    assert_same_bits(out, three_products(a, b)[0])
    product_right_transposed(shifted(a, numbers), shifted(np.ascontiguousarray(b.T), numbers + 1), out)
    assert_same_bits(out, three_products(a, b)[0])


ELSEWHERE = """
import platform, sys
import numba, numpy as np
machine, operands, results = sys.argv[1:]
platform.machine = lambda: machine
from ps_vae.nn.gemm import product, product_left_transposed, product_right_transposed
from ps_vae.nn.simd import LANES
out = {"lanes": np.array(LANES)}
with np.load(operands) as given:
    for i in range(len(given) // 2):
        a, b = given[f"a{i}"], given[f"b{i}"]
        for name, function, x, y in (
            ("plain", product, a, b),
            ("left", product_left_transposed, np.ascontiguousarray(a.T), b),
            ("right", product_right_transposed, a, np.ascontiguousarray(b.T)),
        ):
            out[f"{name}{i}"] = np.empty((len(a), b.shape[1]), np.float32)
            function(x, y, out[f"{name}{i}"])
np.savez(results, **out)
"""


@pytest.mark.parametrize("lanes", [4, 8] if platform.machine() == "x86_64" else [4])
def test_machines_with_narrower_vectors_get_the_same_bits(lanes: int, tmp_path: Path) -> None:
    """The shipped kernels, compiled for another machine by another process."""
    shapes = [(1, 1, 1), (33, 20, 71), (128, 40, 20), (20, 90, 130), *LARGE]
    pairs = [(normals(rows, terms), normals(terms, columns, seed=1)) for rows, terms, columns in shapes]
    np.savez(
        tmp_path / "operands.npz", **{f"{n}{i}": x for i, p in enumerate(pairs) for n, x in zip("ab", p, strict=True)}
    )

    # A cache of its own: what is compiled for a machine that this one only pretends to be must not be found again.
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    machine = {4: "aarch64", 8: "x86_64"}[lanes]
    if machine == "x86_64":
        environment |= {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    arguments = [
        sys.executable,
        "-c",
        ELSEWHERE,
        machine,
        str(tmp_path / "operands.npz"),
        str(tmp_path / "results.npz"),
    ]
    subprocess.run(arguments, check=True, env=environment, timeout=120)

    with np.load(tmp_path / "results.npz") as results:
        assert results["lanes"] == lanes
        for i, (a, b) in enumerate(pairs):
            for name, expected in zip(("plain", "left", "right"), three_products(a, b), strict=True):
                assert_same_bits(results[f"{name}{i}"], expected)


def test_what_is_not_finite_stays_in_its_row_and_column() -> None:
    a, b = normals(50, 60), normals(60, 70, seed=1)
    a[7, 3], b[5, 11] = np.nan, np.inf
    for result in three_products(a, b):
        finite = np.isfinite(result)
        expected = np.ones((50, 70), np.bool_)
        expected[7] = expected[:, 11] = False
        np.testing.assert_array_equal(finite, expected)


def test_threads_have_each_their_own_place_to_work() -> None:
    pairs = [(normals(130, 600, seed=seed), normals(600, 70, seed=seed + 2)) for seed in (0, 1)]
    alone = [three_products(*pair) for pair in pairs]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            for results, expected in zip(threads.map(lambda pair: three_products(*pair), pairs), alone, strict=True):
                for result, same in zip(results, expected, strict=True):
                    assert_same_bits(result, same)


@pytest.mark.parametrize("function", [product, product_left_transposed, product_right_transposed])
def test_shapes_that_do_not_fit_are_refused(function: Callable[[Floats, Floats, Floats], None]) -> None:
    with pytest.raises(UsageError, match=r"\(2, 3\), \(4, 5\) and \(6, 7\)"):
        function(normals(2, 3), normals(4, 5), normals(6, 7))
