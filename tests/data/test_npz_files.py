""".npz archives: the names of their arrays, and sizes that are checked before anything is unpacked."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from ps_vae.data import load
from ps_vae.errors import DataError

ROWS = np.arange(40, dtype=np.uint8).reshape(10, 4)


def sizes(dataset):
    return [len(split) for split in (dataset.train, dataset.validation, dataset.test)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "validation", "test"), [10, 4, 3]),
        (("x_train", "x_validation", "x_test"), [10, 4, 3]),
        (("train_images", "val_images", "test_images"), [10, 4, 3]),
        (("x_train", "y_train", "x_test"), [10, 0, 3]),
        (("train", "validation", "labels"), [10, 4, 0]),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_found_by_name(tmp_path, names, expected, save):
    save(tmp_path / "x.npz", **dict(zip(names, (ROWS, ROWS[:4] + 1, ROWS[:3] + 2), strict=True)))
    dataset = load(str(tmp_path / "x.npz"), "1,0,0")
    assert sizes(dataset) == expected
    assert np.array_equal(dataset.train.array, ROWS)
    if expected[1]:
        assert np.array_equal(dataset.validation.array, ROWS[:4] + 1)
    if expected[2]:
        assert np.array_equal(dataset.test.array, ROWS[:3] + 2)


@pytest.mark.parametrize("array", [ROWS, np.asfortranarray(ROWS), ROWS.astype(">f4"), ROWS.reshape(10, 2, 2)])
def test_a_single_array_may_have_any_name(tmp_path, array):
    np.savez(tmp_path / "x.npz", digits=array)
    dataset = load(str(tmp_path / "x.npz"))
    assert sizes(dataset) == [8, 1, 1]
    assert np.array_equal(dataset.train.array, ROWS)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": ROWS, "b": ROWS}, r"\(there: a, b\)"),
        ({"test": ROWS, "labels": ROWS}, "no array is named train"),
        ({"train": ROWS, "test": ROWS[:, :3]}, "test has 3 features of uint8, train has 4 of uint8"),
        ({"train": ROWS, "test": ROWS / 255}, "test has 4 features of float64, train has 4 of uint8"),
        ({"train": ROWS, "test": ROWS[:0]}, r"test.npy: shape \(0, 4\) holds nothing"),
        ({"train": np.array([[{}]])}, "pickle"),
        ({"train": ROWS, "validation": np.full((2, 4), np.nan)}, "validation: nan at row 0, column 0"),
    ],
)
def test_archives_that_cannot_be_trained_on_are_refused(tmp_path, arrays, says):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=says) as caught:
        load(str(tmp_path / "x.npz"))
    assert str(caught.value).startswith(str(tmp_path / "x.npz"))


def archive_bytes():
    file = io.BytesIO()
    np.savez_compressed(file, train=ROWS)
    return file.getvalue()


def with_declared_size(change):
    """The archive with another uncompressed size in its directory, where zipfile looks."""
    content = bytearray(archive_bytes())
    at = content.index(b"PK\x01\x02") + 24
    struct.pack_into("<I", content, at, struct.unpack_from("<I", content, at)[0] + change)
    return bytes(content)


def with_other_body():
    content = bytearray(archive_bytes())
    at = content.index(b"PK\x01\x02")
    content[at - 8] ^= 0xFF
    return bytes(content)


def encrypted():
    content = bytearray(archive_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + flags] |= 1
    return bytes(content)


def with_member(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train.npy", content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (with_declared_size(+1000), "the archive is damaged"),
        (with_declared_size(-10), "Bad CRC"),
        (with_other_body(), "cannot be unpacked"),
        (encrypted(), "cannot be unpacked"),
        (archive_bytes()[:-30], "cannot be unpacked"),
        (b"PK\x03\x04 and nothing more", "cannot be unpacked"),
        (with_member(b"not a npy file"), "not a .npy file"),
        (with_member(b""), "not a .npy file"),
    ],
)
def test_a_damaged_archive_is_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        load(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_left_packed(tmp_path):
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (300 * 1024, 1024)})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("train.npy", "w") as member,
    ):
        member.write(header.getvalue())
        for _ in range(300):
            member.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match="over 100 times"):
        load(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
