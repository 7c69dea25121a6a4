"""The numbers of rows that commands take, show and write are those of the file that was trained on."""

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from untrained import untrained_run

from ps_vae.cli.main import run
from ps_vae.train.trained import TrainedModel
from ps_vae.vae.inference import decode, encode

ROWS = 50
FAR = 33


@pytest.fixture
def rows(tmp_path: Path) -> np.ndarray:
    """Of which FAR is far from all others; as out.csv."""
    rows = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)
    rows[FAR] = 40
    pandas.DataFrame(rows, columns=list("abcd")).to_csv(tmp_path / "out.csv", index=False)
    return rows


def means_of(run_dir: Path, rows: np.ndarray) -> np.ndarray:
    return encode(TrainedModel.open(run_dir, say=print).parameters, rows).mean


@pytest.mark.parametrize(("split", "name"), [("1,0,0", "train"), ("0.5,0,0.5", None)])
def test_the_least_likely_row_is_shown_and_written_by_its_place_in_the_file(
    tmp_path: Path, rows: np.ndarray, capsys, split: str, name: str | None
) -> None:
    run_dir = untrained_run(tmp_path / "run", tmp_path / "out.csv", "gaussian", split=split)
    data = TrainedModel.open(run_dir, say=print).data
    name = name or next(name for name in ("train", "test") if FAR in data.split(name).where(np.arange(25)))
    words = ["score", str(run_dir), "--split", name, "--samples", "5", "--processes", "1", "--top", "1"]
    assert run(words) == 0
    shown, closing = capsys.readouterr().out.splitlines()
    assert shown.startswith(f"row {FAR} ")
    assert closing.endswith(f"rows are counted from 0 in {tmp_path / 'out.csv'}")
    written = pandas.read_csv(run_dir / f"scores-{name}.csv")
    assert written["row"].is_monotonic_increasing
    assert written["row"][written["score"].argmax()] == FAR
    assert run([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["top"][0]["row"], answer["rows_of"]) == (FAR, str(tmp_path / "out.csv"))


def test_encoded_rows_of_a_whole_file_stand_in_its_order(tmp_path: Path, rows: np.ndarray) -> None:
    run_dir = untrained_run(tmp_path / "run", tmp_path / "out.csv", "gaussian", split="1,0,0")
    assert run(["encode", str(run_dir), "--split", "train"]) == 0
    np.testing.assert_allclose(np.load(run_dir / "encoded-train.npy"), means_of(run_dir, rows), atol=1e-5)


@pytest.mark.parametrize("name", ["z.npz", "z.csv"])
def test_encoded_rows_of_a_part_say_which_of_the_file_they_are(tmp_path: Path, rows: np.ndarray, name: str) -> None:
    run_dir = untrained_run(tmp_path / "run", tmp_path / "out.csv", "gaussian", split="auto")
    assert run(["encode", str(run_dir), "--split", "train", "--output", str(tmp_path / name)]) == 0
    if name == "z.npz":
        with np.load(tmp_path / name) as written:
            assert sorted(written.files) == ["row", "z"]
            row, z = written["row"], written["z"]
    else:
        table = pandas.read_csv(tmp_path / name)
        row, z = table["row"].to_numpy(), table[["z0", "z1", "z2"]].to_numpy()
    assert len(set(row)) == 40
    np.testing.assert_allclose(z, means_of(run_dir, rows[row]), atol=1e-5)
    assert run(["encode", str(run_dir), "--split", "train"]) == 0
    np.testing.assert_allclose(np.load(run_dir / "encoded-train.npy"), z, atol=1e-6)


def test_reconstructed_rows_are_those_of_the_file_that_they_say(tmp_path: Path, rows: np.ndarray) -> None:
    run_dir = untrained_run(tmp_path / "run", tmp_path / "out.csv", "gaussian", split="1,0,0")
    assert run(["reconstruct", str(run_dir), "--split", "train", "--count", "30"]) == 0
    written = pandas.read_csv(run_dir / "reconstructions.csv")
    assert len(set(written["row"])) == 30
    np.testing.assert_allclose(written[list("abcd")], rows[written["row"]], rtol=1e-6)
    assert run(["reconstruct", str(run_dir), "--split", "train", "--output", str(tmp_path / "r.npy")]) == 0
    originals, _ = np.load(tmp_path / "r.npy")
    np.testing.assert_allclose(originals, rows[[row in originals[:, 0] for row in rows[:, 0]]])


def test_a_traversal_starts_from_the_row_of_the_file(tmp_path: Path, rows: np.ndarray, capsys) -> None:
    run_dir = untrained_run(tmp_path / "run", tmp_path / "out.csv", "gaussian", split="0.5,0,0.5")
    model = TrainedModel.open(run_dir, say=print)
    (has, lacks) = ("train", "test") if FAR in model.rows("train") else ("test", "train")
    words = ["traverse", str(run_dir), "--row", str(FAR), "--output", str(tmp_path / "t.npy")]
    words += ["--dimensions", "1", "--steps", "3"]
    assert run([*words, "--split", has]) == 0
    assert run([*words, "--split", lacks]) == 2
    assert f"--row {FAR} of {tmp_path / 'out.csv'} is not in {lacks}; it is one of {has}" in capsys.readouterr().err
    mean = means_of(run_dir, rows[[FAR]])
    ways = np.repeat(mean, 3, axis=0)
    ways[:, model.encode(has).var(axis=0).argmax()] = np.linspace(-2.326, 2.326, 3)
    np.testing.assert_allclose(np.load(tmp_path / "t.npy")[0], decode(model.parameters, ways), atol=0.05)


def test_rows_of_a_test_set_of_its_own_are_counted_in_that(tmp_path: Path, capsys) -> None:
    generator = np.random.default_rng(1)
    test = generator.standard_normal((9, 4)).astype(np.float32)
    test[4] = 40
    np.savez(tmp_path / "own.npz", x_train=generator.standard_normal((30, 4)).astype(np.float32), x_test=test)
    run_dir = untrained_run(tmp_path / "run", tmp_path / "own.npz", "gaussian", split="auto")
    assert run(["score", str(run_dir), "--samples", "5", "--processes", "1", "--top", "1"]) == 0
    shown, closing = capsys.readouterr().out.splitlines()
    assert shown.startswith("row 4 ")
    assert closing.endswith(f"rows are counted from 0 in the test rows of {tmp_path / 'own.npz'}")
