"""A run's folder: never taken from another run, and read as far as it was written."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import small_config

from ps_vae.errors import CheckpointError, UsageError
from ps_vae.train.run_folder import RunFolder, free_name


def made(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.create(small_config())
    return folder


def test_the_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = made(tmp_path / "runs" / "one")
    assert folder.config() == small_config()
    folder.write_config(small_config(steps=99))
    assert folder.config() == small_config(steps=99)
    written = json.loads((folder.path / "run.json").read_text())
    assert set(written["versions"]) >= {"ps_vae", "numpy", "numba", "safetensors"}
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("what", ["run", "file in it", "file"])
def test_a_run_is_never_written_over_what_is_there(tmp_path: Path, what: str) -> None:
    path = tmp_path / "taken"
    if what == "run":
        made(path)
    elif what == "file in it":
        path.mkdir()
        (path / "thesis.tex").write_text("precious")
    else:
        path.write_text("precious")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(UsageError, match=rf"{path} exists; continue it with --resume"):
        RunFolder(path).create(small_config(seed=1))
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    assert made(tmp_path).config() == small_config()


def test_a_folder_that_cannot_be_made_is_the_users_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--run-dir"):
        made(tmp_path / "file" / "run")


def test_a_folder_without_a_run_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.json"):
        RunFolder(tmp_path / "nowhere").config()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 1}', '{"format": 2}', '{"format": 1, "config": {"model": []}}', "\xff"]
)
def test_a_run_that_cannot_be_understood_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"run\.json"):
        RunFolder(tmp_path).config()


@settings(deadline=None)
@given(cut=st.integers(0, 200))
def test_metrics_are_read_up_to_where_the_last_line_was_cut_off(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    lines = [{"kind": "training", "version": version, "elbo": -1.5 * version} for version in (1, 2, 3)]
    for line in lines:
        folder.append_metrics(line)
    path = folder.path / "metrics.jsonl"
    text = path.read_text()
    path.write_text(text[: min(cut, len(text))])
    whole = [end for end in range(len(text)) if text[end] == "\n" and end <= cut]  # its "}" is there
    assert folder.metrics() == lines[: len(whole)]


def test_there_are_no_metrics_before_the_first_line(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).metrics() == []


def test_the_result_is_there_from_the_end_of_the_run_until_it_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.result() is None
    folder.write_result({"failed": False})
    folder.write_result({"failed": True})
    assert folder.result() == {"failed": True}
    folder.forget_result()
    folder.forget_result()
    assert folder.result() is None


@pytest.mark.parametrize(
    ("data", "stem"),
    [
        ("mnist-5k", "mnist-5k"),
        ("gaussian:64x16", "gaussian-64x16"),
        ("/data/my images.npy", "my-images-npy"),
        ("/", "run"),
        ("..", "--"),
    ],
)
def test_a_free_name_is_the_datas_with_the_first_number_that_is_not_taken(tmp_path: Path, data: str, stem: str) -> None:
    assert free_name(tmp_path, data) == tmp_path / f"{stem}-1"
    (tmp_path / f"{stem}-1").mkdir()
    (tmp_path / f"{stem}-2").write_text("")
    (tmp_path / f"{stem}-4").mkdir()
    assert free_name(tmp_path, data) == tmp_path / f"{stem}-3"
