"""The test ELBO of weights that another system has trained, taken as `ps-vae evaluate` takes it.

    python -m pareto.scoring --weights weights.npz --data mnist-5k --seed 0

weights  .npz of the tensors by the names that ps_vae gives them, of the model "relu" in models.py
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from models import INPUTS, MODELS

from ps_vae.data import gather, load
from ps_vae.train.elbo import mean_elbo
from ps_vae.vae.layout import ParameterLayout

__all__ = ["score"]


def score(weights: Mapping[str, npt.NDArray[np.float32]], data: str, seed: int) -> dict[str, Any]:
    """elbo, reconstruction and kl of the test rows, in nats; `seed` is that of the noise of each row."""
    layout = ParameterLayout(MODELS["relu"].config)
    vector = layout.zeros()
    for name, view in layout.views(vector).items():
        view[:] = weights[name]
    test = load(data).test
    rows = np.arange(len(test), dtype=np.int64)
    examples = gather(test, rows, np.empty((len(test), INPUTS), np.float32))
    return mean_elbo(layout.bind(vector), examples, seed, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    with np.load(words.weights, allow_pickle=False) as file:
        print(json.dumps(score(dict(file.items()), words.data, words.seed)))


if __name__ == "__main__":
    main()
