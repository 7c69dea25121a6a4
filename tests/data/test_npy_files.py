""".npy files: memory-mapped, never pickle, checked against their own size."""

import io
import pickle
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from ps_vae.data import feature_moments, gather, load
from ps_vae.data.npy import read_header
from ps_vae.errors import DataError


def npy_bytes(header, body=b"", version=1):
    text = header.encode("latin-1")
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + body


def header_text(descr="'|u1'", shape="(4, 2)", fortran="False"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


@settings(deadline=None)
@given(
    dtype=st.sampled_from(["?", "u1", "<i2", ">i4", "<u8", "<f2", "<f4", ">f4", "<f8"]),
    shape=st_numpy.array_shapes(min_dims=0, max_dims=4),
    order=st.sampled_from("CF"),
)
def test_the_header_is_read_as_numpy_wrote_it(dtype, shape, order):
    array = np.zeros(shape, dtype, order)
    file = io.BytesIO()
    np.save(file, array)
    file.seek(0)
    header = read_header(file, "there")
    assert (header.dtype, header.shape) == (array.dtype, array.shape)
    assert header.size == file.tell()
    assert header.claimed == len(file.read())
    assert header.fortran_order == (array.flags.f_contiguous and not array.flags.c_contiguous)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=80) | st.text("{}()[]'\",: descrfotan_shp|<uif1248-9", max_size=80).map(lambda s: s.encode()))
def test_an_arbitrary_header_is_read_or_refused_with_a_data_error(content):
    file = io.BytesIO(b"\x93NUMPY\1\0" + struct.pack("<H", len(content)) + content)
    with pytest.raises(DataError, match="there"):
        read_header(file, "there")


@pytest.mark.parametrize("dtype", ["u1", ">f4", "<f4", "<f8", "<i4", ">i2", "?", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_those_that_were_saved(tmp_path, dtype, order):
    array = np.random.default_rng(1).integers(0, 2 if dtype == "?" else 100, (30, 7)).astype(dtype, order)
    np.save(tmp_path / "x.npy", array)
    dataset = load(str(tmp_path / "x.npy"), "1,0,0")
    rows = dataset.train.where(np.arange(30))
    expected = array[rows].astype(np.float32) / np.float32(255 if dtype == "u1" else 1)
    assert np.array_equal(gather(dataset.train, np.arange(30), np.empty((30, 7), np.float32)), expected)
    assert dataset.image_shape is None


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [((6, 4, 3), (4, 3)), ((6, 4, 3, 1), (4, 3)), ((6, 1, 4, 3), (4, 3)), ((6, 2, 2, 3), None), ((6, 12), None)],
)
def test_rows_of_any_shape_are_flattened_and_pictures_keep_theirs(tmp_path, shape, image_shape):
    array = np.arange(72, dtype=np.uint8).reshape(shape)
    np.save(tmp_path / "x.npy", array)
    dataset = load(str(tmp_path / "x.npy"))
    assert (dataset.features, dataset.image_shape) == (12, image_shape)
    assert np.array_equal(dataset.train.array, array.reshape(6, 12))


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.npy"
    with path.open("wb") as file:
        file.write(npy_bytes(header_text(shape="(8388608, 1024)")))
        file.truncate(file.tell() + 2**33)
    tracemalloc.start()
    dataset = load(str(path))
    rows = gather(dataset.train, np.array([0, len(dataset.train) - 1]), np.empty((2, 1024), np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 8_388_608
    assert not rows.any()
    assert peak < 10_000_000


def test_moments_are_taken_in_bounded_memory(tmp_path):
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        file.write(npy_bytes(header_text(shape="(50000, 784)")))
        file.truncate(file.tell() + 50_000 * 784)
    split = load(str(path)).train
    tracemalloc.start()
    means, variances = feature_moments(split)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert means.shape == (784,)
    assert not means.any()
    assert not variances.any()
    assert peak < 10_000_000


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was loaded",))


def saved_objects():
    file = io.BytesIO()
    np.save(file, np.array([[Trap()]], dtype=object), allow_pickle=True)
    return file.getvalue()


HOSTILE = {
    "claims 32 GiB": (npy_bytes(header_text(shape="(4194304, 8192)")), "34,359,738,368 bytes, but 0 follow"),
    "truncated": (npy_bytes(header_text(), b"1234567"), "8 bytes, but 7 follow"),
    "longer than claimed": (npy_bytes(header_text(), b"123456789"), "8 bytes, but 9 follow"),
    "overflows 64 bits": (npy_bytes(header_text(shape="(4294967296, 4294967296, 4)")), "but 0 follow"),
    "negative lengths": (npy_bytes(header_text(shape="(-2, -4)"), b"12345678"), r"claims shape \(-2, -4\)"),
    "lengths that are no integers": (npy_bytes(header_text(shape="(2.0, True)"), b"12"), "claims shape"),
    "a shape that is no tuple": (npy_bytes(header_text(shape="'ab'"), b"12"), "claims shape"),
    "70 dimensions": (npy_bytes(header_text(shape=str((1,) * 70)), b"1"), "claims shape"),
    "objects": (saved_objects(), "pickle"),
    "pickle after a plain header": (npy_bytes(header_text("'|O'", "(1, 1)"), pickle.dumps(1)), "pickle"),
    "records": (npy_bytes(header_text("[('a', '<f4')]", "(1, 1)"), b"1234"), "cannot take dtype"),
    "text": (
        npy_bytes(header_text("'<U2'", "(1, 1)"), b"12345678"),
        "cannot take dtype '<U2'; save data as uint8 or float32, labels as whole",
    ),
    "dates": (npy_bytes(header_text("'<M8[s]'", "(1, 1)"), b"12345678"), "cannot take dtype"),
    "complex": (npy_bytes(header_text("'<c8'", "(1, 1)"), b"12345678"), "cannot take dtype"),
    "version 9": (npy_bytes(header_text(), b"12345678", version=9), "version 1 to 3"),
    "header beyond the file": (b"\x93NUMPY\1\0\xff\x0f{'descr'", "ends within its header"),
    "a header of 4 GiB": (b"\x93NUMPY\2\0\xff\xff\xff\xff{'descr'", "4,294,967,295 bytes"),
    "a header of code": (npy_bytes("__import__('os').abort()\n"), "cannot be read"),
    "a header that Python warns of": (npy_bytes("{'descr': 1or 2}"), "cannot be read"),
    "a header of brackets": (npy_bytes("(" * 4000), "cannot be read"),
    "a header without shape": (npy_bytes("{'descr': '|u1', 'fortran_order': False}"), "cannot be read"),
    "only the magic": (b"\x93NUMPY", "version 1 to 3"),
    "no rows": (npy_bytes(header_text(shape="(0, 5)")), r"shape \(0, 5\) holds nothing"),
    "no columns": (npy_bytes(header_text(shape="(5, 0)")), r"shape \(5, 0\) holds nothing"),
    "no rows of a great shape": (npy_bytes(header_text(shape=f"(0, {2**62}, {2**62})")), "holds nothing"),
    "one dimension": (npy_bytes(header_text(shape="(3,)"), b"123"), "1-dimensional"),
    "no dimensions": (npy_bytes(header_text(shape="()"), b"1"), "0-dimensional"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_refused_in_one_line(tmp_path, case):
    content, says = HOSTILE[case]
    path = tmp_path / "file.npy"
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as warned, pytest.raises(DataError, match=says) as caught:
        load(str(path))
    assert warned == []
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_the_first_number_that_is_none_is_named(tmp_path, value, dtype):
    # More numbers than are looked at in one go.
    array = np.zeros((3000, 400), dtype)
    array[2900, 17] = array[2900, 30] = array[2950, 3] = value
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=f"{value} at row 2900, column 17 "):
        load(str(tmp_path / "x.npy"))


def test_a_number_beyond_float32_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1.0, 2.0], [3.0, 1e39]]))
    with pytest.raises(DataError, match=r"1e\+39 at row 1, column 1"):
        load(str(tmp_path / "x.npy"))
