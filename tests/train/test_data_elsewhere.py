"""Data that are looked for from another folder than the one where the run was trained."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from ps_vae.cli.main import run
from ps_vae.errors import UsageError
from ps_vae.train import checkpoint
from ps_vae.train.checkpoint import Checkpoint
from ps_vae.train.member import same_data
from ps_vae.train.plan import Wishes
from ps_vae.train.start import settle
from ps_vae.train.update import fresh_state
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With mv/t.csv and a run `run` on it that was trained from there, with weights that were never trained."""
    monkeypatch.chdir(tmp_path)
    Path("mv").mkdir()
    rows = np.random.default_rng(0).normal(size=(60, 2))
    pandas.DataFrame(rows, columns=["a", "b"]).to_csv("mv/t.csv", index=False)
    wishes = Wishes(data="mv/t.csv", likelihood="*:gaussian-feature", hidden=(4,), latent=2, batch_size=8, steps=5)
    run_folder, config, data = settle(wishes, Path("run"), resumes=False)
    run_folder.create(config)
    layout = ParameterLayout(config.model)
    weights = initial_weights(layout, 0, (np.zeros(data.features), np.ones(data.features)))
    checkpoint.write(run_folder.checkpoints, layout, Checkpoint(fresh_state(config, weights), (-1.0, 1.0)))
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


@pytest.mark.parametrize("command", ["evaluate", "score", "encode", "impute"])
def test_a_command_from_another_folder_says_where_it_looked_and_where_to_start(
    folder: Path, command: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "elsewhere")
    assert run([command, "../run"]) == 1
    told = capsys.readouterr().err
    assert "mv/t.csv" in told
    assert f"looked for from {folder / 'elsewhere'}" in told
    assert "start in the folder where the run was trained" in told


def test_a_name_that_is_nothing_says_where_it_was_looked_for_as_a_path(folder: Path, capsys) -> None:
    assert run(["train", "--data", "mvt.csv"]) == 2
    assert f"it was looked for from {folder}, where the command was started" in capsys.readouterr().err


@pytest.mark.parametrize("spelled", ["./mv/t.csv", "{folder}/mv/t.csv"])
def test_a_run_goes_on_with_another_spelling_of_its_data(folder: Path, spelled: str) -> None:
    data = spelled.format(folder=folder)
    before = settle(Wishes(), Path("run"), resumes=True)[1]
    _, config, found = settle(Wishes(data=data), Path("run"), resumes=True)
    assert (config.data, config.data_fingerprint) == (data, before.data_fingerprint)
    assert found.fingerprint == before.data_fingerprint


def test_a_run_goes_on_from_another_folder_where_it_is_told_the_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "elsewhere")
    with pytest.raises(UsageError, match=r"mv/t.csv.*elsewhere, where the command was started.*say with --data"):
        settle(Wishes(), Path("../run"), resumes=True)
    _, config, _ = settle(Wishes(data="../mv/t.csv"), Path("../run"), resumes=True)
    # A worker here reads what the run says now; one on another machine what it was told itself.
    assert same_data(config, None).fingerprint == config.data_fingerprint
    monkeypatch.chdir(folder / "mv")
    assert same_data(config, "t.csv").fingerprint == config.data_fingerprint


def test_a_run_does_not_go_on_with_other_data(folder: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(60, 2))
    pandas.DataFrame(rows, columns=["a", "b"]).to_csv("other.csv", index=False)
    with pytest.raises(UsageError, match=r"--data other.csv are not the data that run was trained on, .* mv/t.csv"):
        settle(Wishes(data="other.csv"), Path("run"), resumes=True)
