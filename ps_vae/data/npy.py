"""NumPy's .npy format, read without trusting it and without pickle.

    bytes        what
    6            b"\\x93NUMPY"
    2            version (1, 0), (2, 0) or (3, 0)
    2 or 4       length of the header, little endian (2 in version 1)
    length       a Python dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
    the rest     the numbers: exactly as many bytes as the header claims

numpy.lib.format describes it. Objects (pickle), records, text and dates are refused.
"""

import ast
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from ps_vae.errors import DataError

__all__ = ["MAGIC", "Header", "read_header", "read_npy"]

MAGIC = b"\x93NUMPY"

_LONGEST_HEADER = 4096
_PLAIN_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


@dataclass(frozen=True, slots=True)
class Header:
    """What a .npy header claims. size: bytes of the header itself."""

    dtype: np.dtype[Any]
    fortran_order: bool
    shape: tuple[int, ...]
    size: int

    @property
    def claimed(self) -> int:
        """Bytes that have to follow."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy(path: Path) -> npt.NDArray[Any]:
    """Memory-map a .npy file, read-only. Raises DataError where the file is not what its header says."""
    with path.open("rb") as file:
        header = read_header(file, str(path))
    found = path.stat().st_size - header.size
    if found != header.claimed:
        raise DataError(
            f"{path}: the header claims {header.dtype} {header.shape}, {header.claimed:,} bytes, but {found:,} "
            "follow; the file is truncated or damaged, save it again"
        )
    order: Literal["C", "F"] = "F" if header.fortran_order else "C"
    return np.memmap(path, header.dtype, "r", header.size, header.shape, order)


def read_header(file: IO[bytes], place: str) -> Header:
    """Read a header, leaving `file` at the first number. `place` begins the text of a DataError."""
    start = file.read(8)
    if start[:6] != MAGIC or start[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise DataError(f"{place}: not a .npy file of version 1 to 3; save it with numpy.save")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > _LONGEST_HEADER:
        raise DataError(f"{place}: a .npy header of {length:,} bytes cannot be one of plain numbers; save it again")
    text = file.read(length)
    if len(text) < length:
        raise DataError(f"{place}: the file ends within its header; it is truncated, save it again")
    return _parse(text, 8 + width + length, place)


def _parse(text: bytes, size: int, place: str) -> Header:
    try:
        # Harmless on a text this short: literals only, and the parser bounds their nesting.
        with warnings.catch_warnings(action="error"):
            fields = ast.literal_eval(text.decode("latin-1").strip())
    except (ValueError, SyntaxError, Warning, TypeError, MemoryError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise DataError(f"{place}: the .npy header cannot be read; the file is damaged, save it again")
    descr, fortran_order, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    if not isinstance(descr, str) or not _PLAIN_NUMBERS.fullmatch(descr):
        objects = " (Python objects, that is pickle, which may run code)" if descr in ("O", "|O") else ""
        raise DataError(
            f"{place}: cannot take dtype {descr!r}{objects}; save data as uint8 or float32, labels as whole numbers"
        )
    if (
        not isinstance(fortran_order, bool)
        or not isinstance(shape, tuple)
        or len(shape) > 32
        or not all(type(length) is int and 0 <= length < 1 << 63 for length in shape)
    ):
        raise DataError(f"{place}: the .npy header claims shape {shape!r}; the file is damaged, save it again")
    if 0 in shape:
        raise DataError(f"{place}: shape {shape} holds nothing to train on; give a file with rows")
    return Header(np.dtype(descr), fortran_order, shape, size)
