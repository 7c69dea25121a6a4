"""Types of fields that several messages have."""

import numpy as np
import numpy.typing as npt

from ps_vae.ps.fields import Binary, Integer, ListOf, Number, Text

__all__ = ["CODE", "CONFIG", "COUNT", "ID", "METRICS", "MICROBATCH", "NAMES", "PERMIT", "SMALL", "Range", "Tensors"]

Tensors = tuple[npt.NDArray[np.float32], ...]
Range = tuple[int, int | None]

ID = PERMIT = Binary(16, 16)
COUNT = Integer()
SMALL = Integer(16)
MICROBATCH = Integer(20)
CONFIG = Binary(32 * 1024)
METRICS = ListOf(Number(), 64)
NAMES = ListOf(Text(64), 16)
CODE = Text(32)
