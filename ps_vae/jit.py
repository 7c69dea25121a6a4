"""The one place where Numba's compile options are set.

`exact_kernel`  every operation rounds as IEEE 754 says, in the order written: the result of an element does
                not depend on where in a slice it stands. For everything whose boundaries may move: the update
                rules of a shard, codecs, noise.
`kernel`        may reassociate sums and contract a*b+c. Same shapes give the same bits, other shapes may not. For
                the mathematics between the GEMMs, where a microbatch always has the same shape. NaN and
                infinity are honoured: a diverged run has to be seen.

Both use NumPy's error model: a division that may raise keeps LLVM from vectorising the loop around it
(five times slower for Adam). Both release the GIL and keep their machine code in Numba's cache.
"""

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["exact_kernel", "kernel"]

_REASSOCIATE = {"reassoc", "contract", "nsz"}


def exact_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` with IEEE semantics, element by element."""
    # Without a word about fastmath Numba would give a function the flags of the kernel that calls it first.
    compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=False)(function)
    return compiled


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function`; sums may be reassociated so that they vectorise."""
    compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REASSOCIATE)(
        function
    )
    return compiled
