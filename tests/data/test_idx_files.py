"""IDX files: what was written is read, and nothing that the file does not hold."""

import gzip
import math
import os
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from ps_vae.data import gather, load
from ps_vae.data.idx import read_idx
from ps_vae.errors import DataError

CODES = {"|u1": 0x08, "|i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx_bytes(array):
    header = bytes([0, 0, CODES[array.dtype.str], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 3), np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    array=st.sampled_from(sorted(CODES)).flatmap(
        lambda dtype: st_numpy.arrays(np.dtype(dtype), st_numpy.array_shapes(max_dims=4, max_side=5))
    ),
    zipped=st.booleans(),
)
def test_idx_round_trip(array, zipped):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
        read = read_idx(path)
        assert (read.shape, read.dtype) == (array.shape, array.dtype)
        assert read.tobytes() == array.tobytes()


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=64), st.booleans())
def test_arbitrary_bytes_are_read_or_refused_with_a_data_error(content, zipped):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(gzip.compress(b"\0\0\x08" + content) if zipped else b"\0\0" + content)
        try:
            read = read_idx(path)
        except DataError:
            return
        # No more numbers than there were bytes.
        assert math.prod(read.shape) <= 64


def test_big_endian_numbers_become_the_same_numbers(tmp_path):
    array = np.linspace(-3, 3, 60).reshape(20, 3).astype(">f4")
    (tmp_path / "file").write_bytes(idx_bytes(array))
    split = load(str(tmp_path / "file"), "1,0,0").train
    rows = gather(split, np.arange(20), np.empty((20, 3), np.float32))
    assert np.array_equal(rows, array[split.where(np.arange(20))])
    assert rows.dtype == np.float32


@pytest.mark.parametrize("ending", ["-idx3-ubyte", "-idx3-ubyte.gz", ".idx3-ubyte"])
def test_a_folder_in_mnists_manner_has_its_own_test_split(tmp_path, ending):
    train, test = images(24), images(5, seed=1)
    pack = gzip.compress if ending.endswith("gz") else bytes
    (tmp_path / f"train-images{ending}").write_bytes(pack(idx_bytes(train)))
    (tmp_path / f"t10k-images{ending}").write_bytes(pack(idx_bytes(test)))
    dataset = load(str(tmp_path))
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [22, 2, 5]
    assert dataset.image_shape == (4, 3)
    assert np.array_equal(dataset.train.array.reshape(-1, 4, 3), train)
    assert np.array_equal(dataset.test.array.reshape(-1, 4, 3), test)


def test_a_folder_with_only_training_images_is_divided(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(images(20)))
    dataset = load(str(tmp_path))
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [16, 2, 2]


def test_a_folder_without_training_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="train-images"):
        load(str(tmp_path))


def test_a_plain_file_is_memory_mapped(tmp_path):
    (tmp_path / "file").write_bytes(idx_bytes(images(20)))
    assert isinstance(read_idx(tmp_path / "file"), np.memmap)


HOSTILE = {
    "truncated": (idx_bytes(images(20))[:-1], r"claims uint8 \(20, 4, 3\), 240 bytes, but 239 bytes follow"),
    "longer than claimed": (idx_bytes(images(20)) + b"x", "240 bytes, but 241 bytes follow"),
    "claims 64 GiB": (b"\0\0\x08\x02" + struct.pack(">2I", 2**18, 2**18) + b"12", "68,719,476,736 bytes, but 2 bytes"),
    "header cut off": (b"\0\0\x08\x03\0\0\0\x05", "header is cut off"),
    "unknown type": (b"\0\0\x07\x01\0\0\0\x01x", "begins with 00 00 07 01"),
    "no dimensions": (b"\0\0\x08\x00", "begins with 00 00 08 00"),
    "255 dimensions": (b"\0\0\x08\xff" + b"\0\0\0\x01" * 255, "begins with 00 00 08 ff"),
    "text": (b"1,2,3\n4,5,6\n", "not a data file that is known .* a table whose name ends in .csv or .tsv"),
    "empty file": (b"", "begins with nothing"),
    "no rows": (idx_bytes(images(0)), r"shape \(0, 4, 3\) holds nothing"),
    "no rows of a great shape": (b"\0\0\x08\x04" + struct.pack(">4I", 0, *[2**32 - 1] * 3), "holds nothing"),
    "labels": (idx_bytes(np.arange(10, dtype=np.uint8)), "1-dimensional"),
    "gz truncated": (gzip.compress(idx_bytes(images(20)))[:-9], "damaged"),
    "gz with a wrong checksum": (gzip.compress(idx_bytes(images(20)))[:-8] + b"\0" * 8, "damaged"),
    "gz of less than claimed": (gzip.compress(idx_bytes(images(20))[:-1]), "240 bytes, but 239 bytes follow"),
    "gz of more than claimed": (gzip.compress(idx_bytes(images(20)) + b"x"), "240 bytes, but more follow"),
    "gz claims 64 GiB": (gzip.compress(b"\0\0\x08\x02" + struct.pack(">2I", 2**18, 2**18)), "over 100 times"),
    "gz of text": (gzip.compress(b"1,2,3"), "not a data file"),
    "gz that is none": (b"\x1f\x8bnot at all", "cannot be unpacked"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_refused_in_one_line(tmp_path, case):
    content, says = HOSTILE[case]
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        load(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_gzip_bomb_is_left_packed(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(idx_bytes(images(20)) + bytes(50_000_000), 1))
    tracemalloc.start()
    with pytest.raises(DataError, match="more follow"):
        load(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_something_that_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        load(str(tmp_path / "pipe"))
