"""What decides the bits of this process's arithmetic, as a short text to compare; and one BLAS thread."""

import hashlib

import numba
import numpy as np
import threadpoolctl

__all__ = ["fingerprint", "use_one_thread"]


def use_one_thread() -> None:
    """BLAS computes on the calling thread from now on: a worker is one core, and its bits know of no other."""
    threadpoolctl.threadpool_limits(1)


def fingerprint() -> str:
    """NumPy, Numba, BLAS build and kernel, and the hash of a small GEMM: equal where bits are equal."""
    blas = [
        f"{library['internal_api']}-{library['version']}-{library.get('architecture', '')}"
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]
    ramp = np.linspace(-1.0, 1.0, 96 * 160, dtype=np.float32).reshape(96, 160)
    product = np.sin(ramp) @ np.cos(ramp.T)
    digest = hashlib.sha256(product.tobytes()).hexdigest()[:16]
    cpu: str = str(numba.core.codegen.get_host_cpu_features())  # type: ignore[no-untyped-call]
    features = hashlib.sha256(cpu.encode()).hexdigest()[:8]
    return f"numpy-{np.__version__} numba-{numba.__version__} {' '.join(blas)} cpu-{features} gemm-{digest}"
