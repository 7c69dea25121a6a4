"""Lines that are there as a whole or not at all, and what is found where a killed process wrote."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from stored import file_names

from ps_vae.train.durable import append_line, make_folder, remove_partial, replace_file
from ps_vae.train.run_folder import RunFolder


def test_a_line_that_the_disk_took_half_of_is_taken_back_and_the_next_one_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, write = RunFolder(tmp_path), os.write
    folder.append_metrics({"version": 1})

    def fills_up(descriptor: int, content: memoryview) -> int:
        if len(content) < 10:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:5])

    monkeypatch.setattr(os, "write", fills_up)
    with pytest.raises(OSError, match="No space left"):
        folder.append_metrics({"version": 2})
    monkeypatch.setattr(os, "write", write)
    folder.append_metrics({"version": 3})

    assert (tmp_path / "metrics.jsonl").read_text() == '{"version": 1}\n{"version": 3}\n'


@pytest.mark.parametrize(
    "rest", ['{"version": 2, "el', '{"version": 2, "el{"version": 3}', "\udcff\udcfe", "[1]", "[" * 9999]
)
def test_lines_that_make_no_sense_do_not_hide_the_others(tmp_path: Path, rest: str) -> None:
    lines = ["{}", rest, '{"version": 4}']
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    assert RunFolder(tmp_path).metrics() == [{}, {"version": 4}]


def test_a_file_that_is_replaced_has_its_old_contents_until_it_has_all_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync = tmp_path / "run.json", os.fsync
    replace_file(path, b"old")
    seen: list[bytes] = []

    def reading_fsync(descriptor: int) -> None:
        seen.append(path.read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", reading_fsync)
    replace_file(path, b"new")

    # Before the rename, and after it.
    assert seen == [b"old", b"new"]
    assert file_names(tmp_path) == ["run.json"]


def test_what_was_left_unfinished_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("run.json", "run.json.partial", "partial", "step-1.safetensors.partial"):
        (tmp_path / name).write_text("")
    assert [path.name for path in remove_partial(tmp_path)] == ["run.json.partial", "step-1.safetensors.partial"]
    assert file_names(tmp_path) == ["partial", "run.json"]
    assert remove_partial(tmp_path / "nowhere") == []


def test_folders_are_made_with_those_above_them_or_are_there_already(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()
    append_line(tmp_path / "a" / "b" / "log", "x")


def test_an_error_of_writing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    path = tmp_path / "run.json"
    writers: list[Callable[[], None]] = [lambda: replace_file(path, b"new"), lambda: append_line(path, "new")]
    monkeypatch.setattr(os, "write", refuse)
    for write in writers:
        with pytest.raises(OSError, match="No space left") as refused:
            write()
        assert refused.value.filename == str(path)


def test_an_error_of_flushing_a_folder_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output") as refused:
        make_folder(tmp_path / "run")
    assert refused.value.filename == str(tmp_path)
