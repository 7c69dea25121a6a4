"""Checkpoints in which every element is another number, of a model so small that every byte of a file can be tried."""

from pathlib import Path

import numpy as np

from ps_vae.ps.state import ShardState
from ps_vae.train.checkpoint import Checkpoint
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.layout import ParameterLayout

TINY = ParameterLayout(ModelConfig(inputs=4, hidden=(2,), latent=1))


def stored(layout: ParameterLayout, version: int, names: tuple[str, ...]) -> Checkpoint:
    """NaN, infinities and -0 are among the numbers; padding is zero, as in a run."""
    random = np.random.default_rng(version)
    vectors = [layout.zeros() for _ in range(1 + len(names))]
    for vector in vectors:
        for view in layout.views(vector).values():
            view[...] = random.standard_normal(view.shape)
    vectors[0][:5] = [np.nan, np.inf, -np.inf, -0.0, 1e-45]
    state = ShardState(version, vectors[0], dict(zip(names, vectors[1:], strict=True)))
    return Checkpoint(state, (float(random.standard_normal()), 0.1 + version))


def tiny(version: int) -> Checkpoint:
    return stored(TINY, version, ("first_moment", "second_moment"))


def assert_same_bits(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    assert found.version == expected.version
    assert found.metrics == expected.metrics
    assert found.state.weights.tobytes() == expected.state.weights.tobytes()
    assert list(found.state.optimizer) == list(expected.state.optimizer)
    for name, vector in expected.state.optimizer.items():
        assert found.state.optimizer[name].tobytes() == vector.tobytes()


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
