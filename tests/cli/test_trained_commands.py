"""`sample`, `reconstruct`, `encode`, `evaluate` on a run's folder: what they write is what the model says."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy.stats import kstest
from untrained import untrained_run

from ps_vae.cli.main import run
from ps_vae.cli.run_pictures import draw_run
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.trained import TrainedModel
from ps_vae.vae.inference import decode, encode


def make_run(folder: Path, data: Path, likelihood: str) -> Path:
    run_dir = untrained_run(folder / "run", data, likelihood)
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


@pytest.mark.parametrize("command", ["sample", "reconstruct", "interpolate", "traverse"])
def test_rows_that_are_no_images_are_not_drawn(table: Path, tmp_path: Path, capsys, command: str) -> None:
    few = ["--pairs", "2"] if command == "interpolate" else []
    assert run([command, str(table), *few, "--output", str(tmp_path / "x.png")]) == 2
    assert "no images; give --output FILE.csv or FILE.npy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name", "columns", "count"),
    [
        (["sample", "--count", "7"], "samples", [], 7),
        (["reconstruct", "--count", "6"], "reconstructions", ["row"], 6),
        (["interpolate", "--pairs", "2", "--steps", "3"], "interpolations", ["pair", "step"], 6),
        (["traverse", "--dimensions", "2", "--steps", "4"], "traversals", ["dimension", "step"], 8),
    ],
)
def test_rows_that_are_no_images_are_written_as_tables(
    table: Path, tmp_path: Path, words: list[str], name: str, columns: list[str], count: int
) -> None:
    command, *more = words
    assert run([command, str(table), *more]) == 0
    assert run([command, str(table), *more, "--output", str(tmp_path / "x.npy")]) == 0
    written, array = pandas.read_csv(table / f"{name}.csv", dtype=str), np.load(tmp_path / "x.npy")
    features = [f"x{number}" for number in range(5)]
    if command == "reconstruct":
        features += [f"{feature} reconstructed" for feature in features]
        array = np.concatenate(list(array), axis=1)
    assert list(written.columns) == [*columns, *features]
    # No digit more than a float32 has.
    assert written[features].to_numpy().tolist() == array.reshape(count, -1).astype(str).tolist()


def test_columns_of_a_table_keep_their_names(tmp_path: Path) -> None:
    rows = pandas.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["age", "income"])
    rows.to_csv(tmp_path / "people.csv", index=False)
    run_dir = make_run(tmp_path, tmp_path / "people.csv", "gaussian")
    assert run(["sample", str(run_dir), "--count", "3"]) == 0
    assert list(pandas.read_csv(run_dir / "samples.csv").columns) == ["age", "income"]


def test_encode_writes_the_posterior_means_of_a_split(images: Path, capsys) -> None:
    assert run(["encode", str(images), "--split", "validation"]) == 0

    written = np.load(images / "encoded-validation.npy")
    assert written.shape == (20, 3)
    assert written.dtype == np.float32
    model = TrainedModel.open(images, say=silent)
    np.testing.assert_array_equal(written, model.encode("validation")[model.rows("validation").argsort()])
    place = f"in the order of {images.parent / 'pixels.npy'}"
    assert capsys.readouterr() == (f"{images / 'encoded-validation.npy'}: 20 x 3 float32; {place}\n", "")


def test_encode_draws_from_the_posteriors_where_it_is_told_to(images: Path, tmp_path: Path) -> None:
    def draw(seed: int) -> np.ndarray:
        path = tmp_path / "z.npy"
        assert (
            run(["encode", str(images), "--split", "train", "--draw", "--seed", str(seed), "--output", str(path)]) == 0
        )
        return np.load(path)

    model = TrainedModel.open(images, say=silent)
    mean, log_variance = encode(model.parameters, model.examples("train", 0, 160))
    order = model.rows("train").argsort()
    standard = (draw(1) - mean[order]) / np.exp(log_variance[order] / 2)
    assert kstest(standard.reshape(-1), "norm").pvalue > 0.001
    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).all()


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


def test_more_rows_than_there_are_are_not_claimed_to_be_shown(images: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "r.png"
    assert run(["reconstruct", str(images), "--count", "100000", "--output", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 20 rows of test and their reconstructions\n"


@pytest.mark.parametrize("command", ["sample", "reconstruct"])
def test_a_picture_goes_where_it_was_asked_for(images: Path, tmp_path: Path, capsys, command: str) -> None:
    path = tmp_path / "picture.png"

    assert run([command, str(images), "--count", "3", "--output", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.startswith(f"{path}: 3 ")


def test_interpolation_leads_from_one_reconstruction_to_the_other(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "between.npy"
    assert run(["interpolate", str(images), "--pairs", "3", "--steps", "5", "--output", str(path)]) == 0
    means = np.load(path)
    assert means.shape == (3, 5, 64)
    _, reconstructions = TrainedModel.open(images, say=silent).reconstruct("test", 6)
    np.testing.assert_allclose(means[:, 0], reconstructions[0::2], atol=1e-6)
    np.testing.assert_allclose(means[:, -1], reconstructions[1::2], atol=1e-6)


def test_a_traversal_moves_one_dimension_at_a_time_through_the_prior(images: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "moved.npy", TrainedModel.open(images, say=silent)
    row = str(model.rows("test")[2])
    assert run(["traverse", str(images), "--row", row, "--dimensions", "2", "--steps", "4", "--output", str(path)]) == 0
    means = np.load(path)
    dimensions, same = model.traverse("test", int(row), 2, 4)
    np.testing.assert_array_equal(means, same)
    z = model.encode("test")
    assert dimensions == np.argsort(-z.var(axis=0))[:2].tolist()
    for number, dimension in enumerate(dimensions):
        moved = np.repeat(z[2:3], 4, axis=0)
        moved[:, dimension] = np.linspace(-2.326, 2.326, 4)
        np.testing.assert_allclose(means[number], decode(model.parameters, moved), atol=0.02)


@pytest.mark.parametrize("command", ["interpolate", "traverse"])
def test_ways_through_the_latent_space_are_pictures_by_default(images: Path, capsys, command: str) -> None:
    assert run([command, str(images)]) == 0
    (path,) = (images / "pictures").glob(f"{command[:7]}*.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["interpolate", "--pairs", "11"], "--pairs 11 are 22 rows, and test has 20"),
        (["traverse", "--row", "200"], "is not in test; rows are counted from 0"),
        (["score", "--output", "scores.txt"], "has to end in .csv"),
        (["evaluate", "--version", "7"], "has no checkpoint of version 7"),
        (["sample", "--version", "best"], "no validation figures, so no best version"),
    ],
)
def test_what_a_run_does_not_have_is_told(images: Path, capsys, words: list[str], text: str) -> None:
    assert run([words[0], str(images), *words[1:]]) == 2
    assert text in capsys.readouterr().err


def test_scores_are_those_of_evaluate_and_the_least_likely_are_shown(table: Path, capsys) -> None:
    assert run(["score", str(table), "--samples", "50", "--top", "3", "--processes", "1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    with (table / "scores-test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["row"] for row in rows}) == 10
    highest = sorted(rows, key=lambda row: -float(row["score"]))[:3]
    assert [line.split()[1] for line in shown[:3]] == [row["row"] for row in highest]
    assert run(["evaluate", str(table), "--samples", "50", "--processes", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nll"] == pytest.approx(np.mean([float(row["score"]) for row in rows]), rel=1e-9)


def test_evaluate_splits_the_elbo_into_its_parts(images: Path, capsys) -> None:
    assert run(["evaluate", str(images), "--json", "--limit", "15"]) == 0

    result = json.loads(capsys.readouterr().out)
    assert (result["split"], result["examples"], result["version"]) == ("test", 15, 0)
    assert result["elbo"] == pytest.approx(result["reconstruction"] - result["kl"], abs=1e-9)
