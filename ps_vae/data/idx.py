"""The IDX format of MNIST (yann.lecun.com/exdb/mnist), plain or gzipped, read without trusting it.

    bytes      what
    2          zero
    1          type: 08 uint8, 09 int8, 0B int16, 0C int32, 0D float32, 0E float64
    1          number of dimensions d
    4 d        the dimensions, uint32, big endian
    the rest   the numbers, big endian: exactly as many bytes as the dimensions claim

A folder in MNIST's manner holds train-images-idx3-ubyte and perhaps t10k-images-idx3-ubyte, each with or without .gz
(also written train-images.idx3-ubyte); labels are in train-labels-idx1-ubyte and t10k-labels-idx1-ubyte.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.expansion import check_expansion
from ps_vae.errors import DataError

__all__ = ["read_idx", "read_idx_folder", "read_idx_labels"]

GZIP_MAGIC = b"\x1f\x8b"

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_FOLDER = {"train": "train-images", "test": "t10k-images"}
_ENDINGS = ("-idx{0}-ubyte", ".idx{0}-ubyte", "-idx{0}-ubyte.gz", ".idx{0}-ubyte.gz")


def read_idx_folder(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Arrays of "train" and, where the folder has it, "test". Raises DataError as read_idx does."""
    arrays = _read_folder(folder, _FOLDER, 3)
    if "train" not in arrays:
        raise DataError(f"{folder}: no train-images-idx3-ubyte(.gz) there; name the data file")
    return arrays


def read_idx_labels(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Labels of "train" and, where the folder has them, of "test". Raises DataError as read_idx does."""
    stems = {split: stem.replace("images", "labels") for split, stem in _FOLDER.items()}
    arrays = _read_folder(folder, stems, 1)
    if "train" not in arrays:
        raise DataError(f"{folder}: no train-labels-idx1-ubyte(.gz) there; put it beside the images")
    return arrays


def read_idx(path: Path) -> npt.NDArray[Any]:
    """One array of the file's own shape and type: memory-mapped where the file is plain, in memory where gzipped.

    Raises DataError where the file is not IDX, or holds fewer or more bytes than it claims.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(2) != GZIP_MAGIC:
            file.seek(0)
            dtype, shape, offset = _read_header(file, path)
            claimed = math.prod(shape) * dtype.itemsize
            if size - offset != claimed:
                raise _wrong_size(path, dtype, shape, f"{size - offset:,} bytes")
            return np.memmap(path, dtype, "r", offset, shape)
    try:
        with gzip.open(path) as unpacked:
            return _read_gzipped(path, size, unpacked)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); it is damaged, fetch it again") from error


def _read_folder(folder: Path, stems: dict[str, str], dimensions: int) -> dict[str, npt.NDArray[Any]]:
    arrays = {}
    for split, stem in stems.items():
        candidates = [folder / (stem + ending.format(dimensions)) for ending in _ENDINGS]
        path = next((path for path in candidates if path.is_file()), None)
        if path is not None:
            arrays[split] = read_idx(path)
    return arrays


def _read_gzipped(path: Path, stored: int, file: gzip.GzipFile) -> npt.NDArray[Any]:
    dtype, shape, _ = _read_header(file, path)
    claimed = math.prod(shape) * dtype.itemsize
    check_expansion(path, stored, claimed)
    # One byte more than claimed: that meets the end, where the checksum is compared, or shows that there is more.
    numbers = file.read(claimed + 1)
    if len(numbers) != claimed:
        raise _wrong_size(path, dtype, shape, f"{len(numbers):,} bytes" if len(numbers) < claimed else "more")
    return np.frombuffer(numbers, dtype).reshape(shape)


def _read_header(file: IO[bytes] | gzip.GzipFile, path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= 8:
        raise DataError(
            f"{path}: not a data file that is known here (it begins with {magic.hex(' ') or 'nothing'}); "
            "give IDX, IDX.gz, .npy, .npz or Parquet, or a table whose name ends in .csv or .tsv"
        )
    lengths = file.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise DataError(f"{path}: the IDX header is cut off; the file is truncated, fetch it again")
    shape = tuple(int(length) for length in np.frombuffer(lengths, ">u4"))
    if 0 in shape:
        raise DataError(f"{path}: shape {shape} holds nothing to train on; give a file with rows")
    return np.dtype(_TYPES[magic[2]]), shape, 4 + len(lengths)


def _wrong_size(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], found: str) -> DataError:
    return DataError(
        f"{path}: the IDX header claims {dtype} {shape}, {math.prod(shape) * dtype.itemsize:,} bytes, but {found} "
        "follow; the file is truncated or damaged, fetch it again"
    )
