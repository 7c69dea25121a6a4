"""`sample`, `reconstruct`, `encode`, `evaluate` on a run's folder: what they write is what the model says."""

import json
from pathlib import Path

import numpy as np
import pytest

from ps_vae.cli.main import run
from ps_vae.cli.run_pictures import draw_run
from ps_vae.data import load
from ps_vae.train import checkpoint
from ps_vae.train.checkpoint import Checkpoint
from ps_vae.train.plan import Wishes, plan
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.trained import TrainedModel
from ps_vae.train.update import fresh_state
from ps_vae.vae.initial import initial_weights
from ps_vae.vae.layout import ParameterLayout


def make_run(folder: Path, data: Path, likelihood: str) -> Path:
    """A run's folder as training would leave it, with weights that were never trained."""
    run_dir = folder / "run"
    config = plan(
        Wishes(data=str(data), hidden=(6,), latent=3, likelihood=likelihood, batch_size=8, steps=5), load(str(data))
    )
    layout = ParameterLayout(config.model)
    RunFolder(run_dir).create(config)
    state = fresh_state(config, initial_weights(layout, 0, None))
    checkpoint.write(RunFolder(run_dir).checkpoints, layout, Checkpoint(state, (-10.0, 1.0)))
    for version in (1, 2, 3):
        RunFolder(run_dir).append_metrics({"kind": "training", "version": version, "elbo": -9.0 + version})
    return run_dir


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)
    np.save(folder / "pixels.npy", pixels)
    return make_run(folder, folder / "pixels.npy", "bernoulli")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    np.save(folder / "rows.npy", np.random.default_rng(0).standard_normal((100, 5)).astype(np.float32))
    return make_run(folder, folder / "rows.npy", "gaussian")


def silent(text: str) -> None:
    pass


def test_the_pictures_of_a_run_of_images(images: Path) -> None:
    drawn = draw_run(images, silent)

    assert [path.name for path in drawn] == ["loss.png", "reconstructions.png", "samples.png"]
    assert all(path.parent == images / "pictures" and path.stat().st_size > 1000 for path in drawn)


def test_rows_that_are_no_images_have_a_loss_curve_only(table: Path) -> None:
    assert [path.name for path in draw_run(table, silent)] == ["loss.png"]


@pytest.mark.parametrize("command", ["sample", "reconstruct"])
def test_rows_that_are_no_images_are_not_drawn(table: Path, capsys, command: str) -> None:
    assert run([command, str(table)]) == 2
    assert "no images; give --output FILE.npy" in capsys.readouterr().err


def test_encode_writes_the_posterior_means_of_a_split(images: Path, capsys) -> None:
    assert run(["encode", str(images), "--split", "validation"]) == 0

    written = np.load(images / "encoded-validation.npy")
    assert written.shape == (20, 3)
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, TrainedModel.open(images, say=silent).encode("validation"))
    assert capsys.readouterr() == (f"{images / 'encoded-validation.npy'}: 20 x 3 float32\n", "")


def test_reconstruct_writes_originals_and_means(images: Path, tmp_path: Path) -> None:
    assert run(["reconstruct", str(images), "--count", "4", "--output", str(tmp_path / "r.npy")]) == 0

    originals, means = np.load(tmp_path / "r.npy")
    assert originals.shape == means.shape == (4, 64)
    # Pixels are bytes divided by 255; the means of Bernoulli pixels are probabilities.
    np.testing.assert_allclose(originals * 255, np.round(originals * 255), atol=1e-4)
    assert 0 < means.min() < means.max() < 1


def test_the_same_seed_draws_the_same_samples_and_another_others(images: Path, tmp_path: Path) -> None:
    def draw(seed: int) -> np.ndarray:
        path = tmp_path / "s.npy"
        assert run(["sample", str(images), "--count", "7", "--seed", str(seed), "--output", str(path)]) == 0
        return np.load(path)

    assert draw(1).shape == (7, 64)
    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


@pytest.mark.parametrize("command", ["sample", "reconstruct"])
def test_a_picture_goes_where_it_was_asked_for(images: Path, tmp_path: Path, capsys, command: str) -> None:
    path = tmp_path / "picture.png"

    assert run([command, str(images), "--count", "3", "--output", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.startswith(f"{path}: 3 ")


def test_evaluate_splits_the_elbo_into_its_parts(images: Path, capsys) -> None:
    assert run(["evaluate", str(images), "--json", "--limit", "15"]) == 0

    result = json.loads(capsys.readouterr().out)
    assert (result["split"], result["examples"], result["version"]) == ("test", 15, 0)
    assert result["elbo"] == pytest.approx(result["reconstruction"] - result["kl"], abs=1e-9)
