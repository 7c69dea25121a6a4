"""What a command writes takes the place of nothing that is needed, and is whole."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas
import pytest
from untrained import untrained_run

from ps_vae.cli.main import run
from ps_vae.train.trained import TrainedModel

ROOM = 4096
COMMANDS = ["sample", "reconstruct", "interpolate", "traverse", "encode", "score", "impute"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A run's table, and the run beside it."""
    rows = np.random.default_rng(0).normal(size=(60, 2))
    rows[7, 0] = np.nan
    pandas.DataFrame(rows, columns=["a", "b"]).to_csv(tmp_path / "t.csv", index=False)
    untrained_run(tmp_path / "run", str(tmp_path / "t.csv"), "*:gaussian-feature")
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
    run_dir = untrained_run(tmp_path / "run", str(images.parent), "bernoulli")
    os.link(images, tmp_path / "pixels.npy")
    assert run(["sample", str(run_dir), "--output", str(tmp_path / "pixels.npy")]) == 2
    assert f"that is {images} itself" in capsys.readouterr().err
    assert images.read_bytes() == before


@contextmanager
def little_room() -> Iterator[None]:
    """As on a disk that is full after ROOM bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on tables and pictures whose results take more than ROOM."""
    folder = tmp_path_factory.mktemp("large")
    rows = np.random.default_rng(0).normal(size=(2000, 2))
    rows[7, 0] = np.nan
    pandas.DataFrame(rows, columns=["a", "b"]).to_csv(folder / "t.csv", index=False)
    np.save(folder / "pixels.npy", np.random.default_rng(0).integers(0, 256, (300, 8, 8), np.uint8))
    untrained_run(folder / "table", str(folder / "t.csv"), "*:gaussian-feature")
    untrained_run(folder / "images", str(folder / "pixels.npy"), "bernoulli")
    return folder


@pytest.mark.parametrize(
    ("words", "run_name", "name"),
    [
        (["sample", "--count", "3000"], "table", "out.csv"),
        (["sample", "--count", "3000"], "table", "out.npy"),
        (["sample", "--count", "100"], "images", "out.png"),
        (["encode", "--split", "train"], "table", "out.npz"),
        (["impute", "--samples", "2", "--processes", "1"], "table", "out.csv"),
        (["impute", "--samples", "2", "--processes", "1"], "table", "out.parquet"),
    ],
)
def test_what_cannot_be_written_leaves_what_was_there(
    large: Path, tmp_path: Path, words: list[str], run_name: str, name: str, capsys
) -> None:
    words = [words[0], str(large / run_name), *words[1:], "--output", str(tmp_path / name)]
    assert run(words) == 0
    before = (tmp_path / name).read_bytes()
    assert len(before) > ROOM
    capsys.readouterr()
    with little_room():
        assert run(words) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count(f"ps-vae: {tmp_path / name}: cannot be written (")) == ("", 1)
    assert "make room on its disk" in told.err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_in_the_place_of_a_file_is_told_before_anything_is_computed(
    table: Path, command: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*arguments: object, **keywords: object) -> None:
        raise AssertionError("something is computed")

    monkeypatch.setattr(TrainedModel, "open", opened)
    folder = table.with_name("d.npy" if command == "encode" else "d.csv")
    folder.mkdir()
    assert run([command, str(table.parent / "run"), "--output", str(folder)]) == 2
    assert f"--output {folder} is a folder; give the name of a file" in capsys.readouterr().err
