"""Standard normal rows, for experiments on speed and for tests: gaussian:NxD is N rows of D features."""

import re

import numpy as np

from ps_vae.data.arrays import Arrays, checked
from ps_vae.errors import UsageError

__all__ = ["gaussian"]

_MOST_BYTES = 1 << 32


def gaussian(size: str, seed: int) -> Arrays:
    """Independent standard normals, float32, the same for the same seed and NumPy version.

    size  "NxD", at most 4 GiB
    """
    match = re.fullmatch(r"([1-9]\d{0,17})x([1-9]\d{0,17})", size)
    if match is None:
        raise UsageError(f"gaussian:{size} is not gaussian:NxD; for 1,000 rows of 20 features say gaussian:1000x20")
    n, features = int(match[1]), int(match[2])
    if 4 * n * features > _MOST_BYTES:
        raise UsageError(f"gaussian:{size} takes {4 * n * features:,} bytes of memory; choose 4 GiB at most")
    rows = np.random.Generator(np.random.PCG64(seed)).standard_normal((n, features), np.float32)
    return checked(f"gaussian:{size}", {"train": rows})
