"""Promise 2 across a mixed cluster: the processor does not decide the bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ps_vae.nn.simd import FUSED, LANES

PROGRAM = """
import hashlib
from small_run import small_config, small_data, small_weights
from ps_vae.nn.simd import LANES
from ps_vae.ps.blocks import Block
from ps_vae.train.arithmetic import fingerprint
from ps_vae.train.gradient import BlockGradient
for activation, likelihood in (("relu", "bernoulli"), ("tanh", "gaussian")):
    config = small_config(activation=activation, likelihood=likelihood, batch_size=40, microbatch=20)
    (result,) = BlockGradient(config, small_data().train)(small_weights(config), 3, [Block(0, 2)])
    print(hashlib.sha256(result.gradient.tobytes()).hexdigest())
print(fingerprint())
print(LANES)
"""


def gradients(**environment: str) -> list[str]:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return run.stdout.split("\n")[:-1]


@pytest.mark.skipif(not FUSED or LANES != 16, reason="this processor has no wider vectors than others")
def test_a_processor_with_vectors_half_as_wide_computes_the_same_gradients_and_says_so(tmp_path: Path) -> None:
    here = gradients()
    narrow = gradients(
        NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+avx2,+fma", NUMBA_CACHE_DIR=str(tmp_path / "cache")
    )

    assert (here.pop(), narrow.pop()) == ("16", "8")
    assert narrow == here
