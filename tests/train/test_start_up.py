"""What a run compiles, it compiles once, before somebody waits for it, and not in silence."""

import os
import re
import subprocess
import sys
from pathlib import Path

from ps_vae.jit import COMPILING

PATIENCE = 120

# Everything that a shard and evaluators call, on a run's own arrays, after the warm-up; prints what it then loaded.
AFTER_THE_WARM_UP = """
import gc
import numpy as np
from numba.core.dispatcher import Dispatcher
from ps_vae.data import load
from ps_vae.ps.partition import Slice
from ps_vae.ps.update import Moment
from ps_vae.train.elbo import mean_elbo
from ps_vae.train.encoding import push_codecs
from ps_vae.train.examples import fixed_rows
from ps_vae.train.gradient import is_finite
from ps_vae.train.plan import Wishes, plan
from ps_vae.train.update import fresh_state, look_ahead_rule, update_rule
from ps_vae.train.warm_up import warm_up_elbo, warm_up_evidence, warm_up_shard
from ps_vae.vae.evidence import estimate_evidence
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout

def loaded():
    kernels = [found for found in gc.get_objects() if isinstance(found, Dispatcher)]
    return {(kernel.py_func.__module__, kernel.py_func.__name__): len(kernel.signatures) for kernel in kernels}

data = load("digits")
config = plan(Wishes(data="digits", hidden=(8,), latent=2, consistency="asp", microbatch=2, push_codec="factors"), data)
layout = ParameterLayout(config.model)
weights, gradient, out = initial_weights(layout, config.seed), layout.zeros(), layout.zeros()
rows = np.arange(300)
examples = fixed_rows(config, data, "train", 0, 300)
state = fresh_state(config, weights)

warm_up_shard(config)
warm_up_elbo(layout.bind(weights))
warm_up_evidence(layout.bind(weights))
before = loaded()
assert is_finite(gradient)
update_rule(config)(weights, (gradient,), state.optimizer, Moment(3, 5, 0.5, 0.9), out)
update_rule(config)(weights, (gradient, gradient), state.optimizer, Moment(3, 5), out)
look_ahead_rule(config)(weights, out, 1.5, gradient)
for codec in push_codecs(config, [Slice(0, layout.size)]):
    assert codec(1).words < layout.size
    codec(1).decode(np.zeros(codec(1).words, np.uint32), gradient)
mean_elbo(layout.bind(weights), examples, config.seed, rows)
estimate_evidence(layout.bind(weights), examples[:2], samples=3, seed=1, rows=rows[:2])
print(sorted(name for name, count in loaded().items() if before.get(name, 0) != count))
"""


def test_a_run_on_an_empty_cache_compiles_each_kernel_once_and_says_so_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--data", "digits", "--hidden", "8", "--latent", "2", "--steps", "20", "--workers", "2", "--no-pictures"]
    # Numba tells what it saves; unbuffered, so that lines of several processes do not end up in one another.
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "NUMBA_DEBUG_CACHE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "ps_vae", "train", *words, "--run-dir", str(run)]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert done.returncode == 0, done.stderr
    logs = "".join(path.read_text() for path in (run / "logs").iterdir())
    saved = re.findall(r"data saved to '([^']+)'", logs)
    assert sorted(saved) == sorted(set(saved))
    assert len(saved) >= 10, logs
    assert done.stderr.count(COMPILING) == 1, done.stderr


def test_after_the_warm_up_no_kernel_is_loaded_any_more() -> None:
    command = [sys.executable, "-c", AFTER_THE_WARM_UP]

    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
