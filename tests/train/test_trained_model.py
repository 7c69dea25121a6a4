"""A trained model is what its newest whole checkpoint says, on the data it was trained on."""

from pathlib import Path

import numpy as np
import pytest
from small_run import small_config, small_data, small_weights

from ps_vae.data import load
from ps_vae.errors import CheckpointError, DataError, UsageError
from ps_vae.jit import COMPILING
from ps_vae.ps.state import ShardState
from ps_vae.train.checkpoint import Checkpoint, write
from ps_vae.train.examples import fixed_rows
from ps_vae.train.plan import Wishes, plan
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.trained import TrainedModel
from ps_vae.vae.inference import decode, encode, reconstruct, sample_prior
from ps_vae.vae.layout import ParameterLayout, Parameters

CONFIG = small_config(binarize="static")
LAYOUT = ParameterLayout(CONFIG.model)


def weights(version: int) -> Parameters:
    return LAYOUT.bind(np.float32(1 + version / 8) * small_weights(CONFIG))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run with checkpoints 1 and 2."""
    folder = RunFolder(tmp_path / "run")
    folder.create(CONFIG)
    for version in (1, 2):
        state = ShardState(version, np.asarray(weights(version).vector, np.float32), {})
        write(folder.checkpoints, LAYOUT, Checkpoint(state, (0.0, 0.0)))
    return folder


def silent(text: str) -> None:
    # Whatever compiles later in this process is told to whom it was told last: that depends on the other tests.
    if not text.startswith(COMPILING):
        raise AssertionError(f"nothing is to be said, but: {text}")


def test_the_newest_version_is_opened_or_the_one_that_is_named(folder: RunFolder) -> None:
    for version, named in ((2, None), (1, 1), (2, 2)):
        model = TrainedModel.open(folder.path, version=named, say=silent)
        assert (model.version, model.config) == (version, CONFIG)
        np.testing.assert_array_equal(model.parameters.vector, weights(version).vector)


def test_a_damaged_checkpoint_is_told_and_passed_over(folder: RunFolder) -> None:
    path = folder.checkpoints / "step-00000002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    told: list[str] = []
    assert TrainedModel.open(folder.path, say=told.append).version == 1
    assert len(told) == 1
    assert str(path) in told[0]
    with pytest.raises(CheckpointError, match="step-00000002"):
        TrainedModel.open(folder.path, version=2, say=silent)
    (folder.checkpoints / "step-00000001.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"{folder.path} has no checkpoint"):
        TrainedModel.open(folder.path, say=told.append)


def test_a_version_that_is_not_there_is_the_users_fault_and_those_that_are_there_are_named(folder: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"version 3; it has step-00000002\.safetensors, step-00000001\.safetensors"):
        TrainedModel.open(folder.path, version=3, say=silent)


def test_a_folder_that_is_no_run_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.json"):
        TrainedModel.open(tmp_path, say=silent)


def test_encoding_reconstructing_and_sampling_are_those_of_the_model(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ps_vae.train.trained._CHUNK", 256)  # as the model itself works through rows
    model = TrainedModel.open(folder.path, say=silent)
    rows = fixed_rows(CONFIG, small_data(), "train", 0, 1439)
    np.testing.assert_array_equal(model.encode("train"), encode(weights(2), rows).mean)
    examples, means = model.reconstruct("train", 10)
    np.testing.assert_array_equal(examples, rows[:10])
    np.testing.assert_array_equal(means, reconstruct(weights(2), rows[:10]))
    assert len(model.reconstruct("test", 10_000)[0]) == 179
    np.testing.assert_array_equal(model.sample(7, seed=3), decode(weights(2), sample_prior(weights(2), 7, seed=3)))
    assert model.sample(7, seed=3).dtype == means.dtype == model.encode("test").dtype == np.float32


def test_data_that_have_changed_or_gone_since_are_a_data_error(tmp_path: Path) -> None:
    file = tmp_path / "data.npy"
    np.save(file, np.eye(30, 16, dtype=np.float32))
    data = load(str(file))
    config = plan(Wishes(data=str(file), hidden=(8,), latent=2, batch_size=8, steps=1), data)
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    layout = ParameterLayout(config.model)
    write(folder.checkpoints, layout, Checkpoint(ShardState(0, layout.zeros(), {}), (0.0, 0.0)))
    assert TrainedModel.open(folder.path, say=silent).data.fingerprint == data.fingerprint

    np.save(file, np.eye(31, 16, dtype=np.float32))
    with pytest.raises(DataError, match=f"{load(str(file)).fingerprint}.*{data.fingerprint}"):
        _ = TrainedModel.open(folder.path, say=silent).data
    file.unlink()
    with pytest.raises(DataError, match=f"{folder.path}.*{file}"):
        _ = TrainedModel.open(folder.path, say=silent).data
