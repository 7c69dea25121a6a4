"""What decides the bits of this process's gradients, as a short text to compare; and one BLAS thread.

With fused multiply-adds every kernel between the examples and the gradient rounds alike on every processor: products
are chains in a fixed order (nn.gemm), and the rest works element by element or sums down columns. Then the versions of
NumPy and Numba, our own sources, and a small computation to be sure, are all that has to agree. Without, products are
BLAS's.
"""

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path

import numba
import numpy as np
import threadpoolctl

from ps_vae.nn.dense import dense
from ps_vae.nn.simd import FUSED

__all__ = ["fingerprint", "one_thread", "use_one_thread"]


def use_one_thread() -> None:
    """BLAS computes on the calling thread from now on: a worker is one core, and its bits know of no other."""
    threadpoolctl.threadpool_limits(1)


def one_thread() -> AbstractContextManager[object]:
    """The same for as long as the context lasts: in a process that is not ours."""
    limits: AbstractContextManager[object] = threadpoolctl.threadpool_limits(1)
    return limits


def fingerprint() -> str:
    """Equal where gradients have equal bits; at most 256 characters."""
    ramp = np.linspace(-1.0, 1.0, 96 * 160, dtype=np.float32).reshape(96, 160)
    product = np.empty((96, 96), np.float32)
    dense(ramp, np.ascontiguousarray(ramp.T), product)
    digest = hashlib.sha256(product.tobytes()).hexdigest()[:16]
    versions = f"numpy-{np.__version__} numba-{numba.__version__} ps-vae-{_sources()}"
    return f"{versions} {'fused' if FUSED else _blas()} product-{digest}"


def _sources() -> str:
    """Of what computes gradients, this version's: two that differ in a comment count as different."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for room in ("data", "nn", "vae"):
        for file in sorted((package / room).rglob("*.py")):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _blas() -> str:
    blas = [
        f"{library['internal_api']}-{library['version']}-{library.get('architecture', '')}"
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]
    cpu: str = str(numba.core.codegen.get_host_cpu_features())  # type: ignore[no-untyped-call]
    return f"{' '.join(blas)} cpu-{hashlib.sha256(cpu.encode()).hexdigest()[:8]}"
