"""NumPy's .npz archives: a zip of .npy files, read without trusting it and without pickle.

Members, in this order of preference (others are ignored):

    train           validation           test           train is needed, the others may be missing
    x_train         x_validation         x_test         as Keras names them
    train_images    val_images           test_images    as MedMNIST names them
    any name                                            where it is the only member

Labels are in the members train_labels, validation_labels, ...; y_train, ...; train_labels, val_labels, ....
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.expansion import check_expansion
from ps_vae.data.npy import read_header
from ps_vae.errors import DataError

__all__ = ["read_npz"]

_NAMES = (
    {"train": "train", "validation": "validation", "test": "test"},
    {"train": "x_train", "validation": "x_validation", "test": "x_test"},
    {"train": "train_images", "validation": "val_images", "test": "test_images"},
)
_LABELS = (
    {"train": "train_labels", "validation": "validation_labels", "test": "test_labels"},
    {"train": "y_train", "validation": "y_validation", "test": "y_test"},
    {"train": "train_labels", "validation": "val_labels", "test": "test_labels"},
)
_BYTES_AT_ONCE = 1 << 22


def read_npz(path: Path, *, labels: bool = False) -> dict[str, npt.NDArray[Any]]:
    """Arrays of "train" and perhaps "validation" and "test", in memory; or their labels.

    Raises DataError for archives that are damaged, encrypted, name no training rows, or expand beyond measure; sizes
    are compared before anything is unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive, labels)
            infos = [archive.getinfo(member) for member in members.values()]
            check_expansion(path, path.stat().st_size, sum(info.file_size for info in infos))
            return {split: _read_member(path, archive, member) for split, member in members.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path}: the archive cannot be unpacked ({error}); save it again with numpy.savez") from error


def _members(path: Path, archive: zipfile.ZipFile, labels: bool) -> dict[str, str]:
    found = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    listed = ", ".join(found[:8]) or "none"
    for names, of_labels in zip(_NAMES, _LABELS, strict=True):
        if names["train"] in found:
            chosen = of_labels if labels else names
            if chosen["train"] not in found:
                raise DataError(f"{path}: no array is named {chosen['train']} (there: {listed}); add the labels")
            return {split: f"{name}.npy" for split, name in chosen.items() if name in found}
    if len(found) == 1 and not labels:
        return {"train": f"{found[0]}.npy"}
    raise DataError(f"{path}: no array is named train or x_train (there: {listed}); rename the training rows")


def _read_member(path: Path, archive: zipfile.ZipFile, member: str) -> npt.NDArray[Any]:
    place = f"{path}: {member}"
    size = archive.getinfo(member).file_size
    with archive.open(member) as file:
        header = read_header(file, place)
        if size - header.size != header.claimed:
            raise DataError(
                f"{place}: the header claims {header.dtype} {header.shape}, {header.claimed:,} bytes, but "
                f"{size - header.size:,} follow; the archive is damaged, save it again"
            )
        numbers = np.empty(header.claimed, np.uint8)
        filled = 0
        while filled < header.claimed:
            part = file.read(min(_BYTES_AT_ONCE, header.claimed - filled))
            if not part:
                raise DataError(
                    f"{place}: the archive ends after {filled:,} of {header.claimed:,} bytes; save it again"
                )
            numbers[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled += len(part)
    return numbers.view(header.dtype).reshape(header.shape, order="F" if header.fortran_order else "C")
