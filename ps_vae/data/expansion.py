"""A limit to what a small compressed file may become in memory."""

from pathlib import Path

from ps_vae.errors import DataError

__all__ = ["check_expansion"]

_HARMLESS = 1 << 28
_LARGEST_RATIO = 100


def check_expansion(path: Path, stored: int, expanded: int) -> None:
    """Raise DataError where `stored` bytes claim to be `expanded` bytes: more than 256 MiB and more than 100 times.

    Deflate reaches 1,032 times on zeros; MNIST's pixels reach 5 times.
    """
    if expanded > _HARMLESS and expanded > _LARGEST_RATIO * stored:
        raise DataError(
            f"{path}: {stored:,} compressed bytes claim to hold {expanded:,}, over {_LARGEST_RATIO} times as many; "
            "if that is meant, unpack them (.npy and unpacked IDX files are memory-mapped)"
        )
