"""Gathering: the right rows, scaled, without allocation."""

import tracemalloc

import numpy as np
import pytest

from ps_vae.data import Split, feature_moments, gather, load
from ps_vae.data.arrays import checked
from ps_vae.data.splitting import divide
from ps_vae.errors import UsageError


def split_of(array, split="0.7,0.2,0.1", divisor=None):
    return divide(checked("rows", {"train": array}, divisor), split)


def bytes_of_every_value():
    return np.arange(256 * 6, dtype=np.int64).astype(np.uint8).reshape(128, 12)


ARRAYS = {
    "uint8": bytes_of_every_value(),
    "float32": np.random.default_rng(0).standard_normal((128, 12), np.float32),
    "float64": np.random.default_rng(0).standard_normal((128, 12)),
    "big-endian float32": np.random.default_rng(0).standard_normal((128, 12)).astype(">f4"),
    "int64": np.arange(128 * 12).reshape(128, 12),
    "bool": np.arange(128 * 12).reshape(128, 12) % 3 == 0,
    "Fortran order": np.asfortranarray(bytes_of_every_value()),
    "every other column": np.random.default_rng(0).standard_normal((128, 24), np.float32)[:, ::2],
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_rows_are_those_of_numpy_indexing_and_division(kind, name):
    array = ARRAYS[kind]
    split = split_of(array).split(name)
    rows = np.random.default_rng(2).integers(0, len(split), 40)
    expected = array[split.where(rows)].astype(np.float32) / np.float32(255 if array.dtype == np.uint8 else 1)
    assert np.array_equal(gather(split, rows, np.full((40, 12), np.nan, np.float32)), expected)


def test_every_byte_becomes_the_nearest_float32_of_its_quotient():
    split = split_of(np.arange(256, dtype=np.uint8).reshape(1, 256), "1,0,0").train
    scaled = gather(split, np.zeros(1, np.int64), np.empty((1, 256), np.float32))[0]
    assert scaled.tolist() == [float(np.float32(value / 255)) for value in range(256)]
    assert scaled[255] == 1


def test_a_divisor_of_the_source_is_used():
    split = split_of(np.array([[0, 8, 16]], np.uint8), "1,0,0", divisor=16.0).train
    assert gather(split, np.zeros(1, np.int64), np.empty((1, 3), np.float32)).tolist() == [[0, 0.5, 1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_nothing_is_allocated_for_bytes_and_float32(tmp_path, dtype):
    np.save(tmp_path / "x.npy", np.ones((1000, 784), dtype))
    split = load(str(tmp_path / "x.npy")).train
    rows, out = np.arange(128), np.empty((128, 784), np.float32)
    gather(split, rows, out)
    tracemalloc.start()
    gather(split, rows, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Less than the row numbers alone would take (1 KiB).
    assert peak < 1000


@pytest.mark.parametrize("kind", ["uint8", "float64"])
@pytest.mark.parametrize("row", [-1, 25, 2**62])
def test_a_row_outside_the_split_is_refused(kind, row):
    split = split_of(ARRAYS[kind]).validation
    assert len(split) == 25
    with pytest.raises(IndexError, match="split of 25 rows"):
        gather(split, np.array([3, row]), np.empty((2, 12), np.float32))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((3, 12), np.float32),
        np.empty((2, 11), np.float32),
        np.empty((2, 12)),
        np.empty((2, 24), np.float32)[:, ::2],
        np.empty(24, np.float32),
    ],
)
def test_an_output_of_another_shape_or_type_is_refused(out):
    with pytest.raises(ValueError, match="not C-contiguous float32"):
        gather(split_of(ARRAYS["uint8"]).train, np.array([0, 1]), out)


def test_row_numbers_of_another_type_are_refused():
    with pytest.raises(ValueError, match="int32"):
        gather(split_of(ARRAYS["uint8"]).train, np.zeros(2, np.int32), np.empty((2, 12), np.float32))


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
def test_moments_are_those_of_the_splits_rows(kind):
    array = ARRAYS[kind]
    split = split_of(array).train
    scaled = array[split.where(np.arange(len(split)))] / (255 if kind == "uint8" else 1)
    means, variances = feature_moments(split)
    np.testing.assert_allclose(means, scaled.mean(axis=0, dtype=np.float64), rtol=0, atol=1e-7)
    np.testing.assert_allclose(variances, scaled.var(axis=0, dtype=np.float64), rtol=1e-6, atol=1e-9)


def test_moments_of_more_rows_than_fit_in_one_go_far_from_zero():
    array = np.random.default_rng(0).normal(1e6, 2.0, (3000, 784)).astype(np.float32)
    means, variances = feature_moments(split_of(array, "1,0,0").train)
    np.testing.assert_allclose(means, array.mean(axis=0, dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(variances, array.var(axis=0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-40, 1e-30, 1e-24, 1e19, 1e30, 1e37])
def test_moments_are_those_of_numbers_whose_squares_float32_has_not(unit):
    array = np.random.default_rng(0).normal(1.0, 2.0, (3000, 3)) * unit
    array = array.astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        means, variances = feature_moments(split_of(array, "1,0,0").train)
    np.testing.assert_allclose(means, array.mean(axis=0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(variances, array.var(axis=0, dtype=np.float64), rtol=1e-5)


def test_moments_of_no_rows_are_refused():
    with pytest.raises(UsageError, match="without rows"):
        feature_moments(Split(ARRAYS["uint8"], 0, 0, False, 255.0))
