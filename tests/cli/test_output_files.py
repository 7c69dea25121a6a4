"""What a command writes takes the place of nothing that is needed, and is whole."""

import os
from pathlib import Path

import numpy as np
import pandas
import pytest

from ps_vae.cli.main import run
from ps_vae.data import load
from ps_vae.train import checkpoint
from ps_vae.train.checkpoint import Checkpoint
from ps_vae.train.data import load_as
from ps_vae.train.plan import Wishes, plan
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.update import fresh_state
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout

COMMANDS = ["sample", "reconstruct", "interpolate", "traverse", "encode", "score", "impute"]


def make_run(run_dir: Path, data: str, likelihood: str) -> Path:
    """As training would leave it, with weights that were never trained."""
    rows = load(data) if ":" not in likelihood else load_as(data, "auto", likelihood, "none")
    config = plan(Wishes(data=data, likelihood=likelihood, hidden=(4,), latent=2, batch_size=8, steps=5), rows)
    layout = ParameterLayout(config.model)
    RunFolder(run_dir).create(config)
    moments = (np.zeros(rows.features), np.ones(rows.features))
    state = fresh_state(config, initial_weights(layout, 0, moments))
    checkpoint.write(RunFolder(run_dir).checkpoints, layout, Checkpoint(state, (-10.0, 1.0)))
    return run_dir


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A run's table, and the run beside it."""
    rows = np.random.default_rng(0).normal(size=(60, 2))
    rows[7, 0] = np.nan
    pandas.DataFrame(rows, columns=["a", "b"]).to_csv(tmp_path / "t.csv", index=False)
    make_run(tmp_path / "run", str(tmp_path / "t.csv"), "*:gaussian-feature")
    return tmp_path / "t.csv"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["t.csv", "link.csv"])
def test_no_command_overwrites_the_table_that_was_trained_on(table: Path, command: str, name: str, capsys) -> None:
    before, other = table.read_bytes(), table.with_name("link.csv")
    other.symlink_to(table)
    assert run([command, str(table.parent / "run"), "--output", str(table.with_name(name))]) == 2
    told = capsys.readouterr().err
    assert f"--output {table.with_name(name)}: that is {table} itself" in told
    assert "give another name" in told
    assert table.read_bytes() == before


def test_data_that_lie_where_a_command_writes_by_default_stay(table: Path, capsys) -> None:
    before, run_dir = table.read_bytes(), table.parent / "run"
    os.link(table, run_dir / "samples.csv")
    assert run(["sample", str(run_dir)]) == 2
    assert "give another name" in capsys.readouterr().err
    assert table.read_bytes() == before


def test_no_command_overwrites_a_file_of_the_folder_that_was_trained_on(tmp_path: Path, capsys) -> None:
    images = tmp_path / "idx" / "train-images-idx3-ubyte"
    images.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 4, 4), np.uint8)
    images.write_bytes(bytes([0, 0, 8, 3]) + np.array(pixels.shape, ">u4").tobytes() + pixels.tobytes())
    before = images.read_bytes()
    run_dir = make_run(tmp_path / "run", str(images.parent), "bernoulli")
    os.link(images, tmp_path / "pixels.npy")
    assert run(["sample", str(run_dir), "--output", str(tmp_path / "pixels.npy")]) == 2
    assert f"that is {images} itself" in capsys.readouterr().err
    assert images.read_bytes() == before
