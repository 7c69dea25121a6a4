"""What a first server that is started again knows of its run: what it cannot ask for, and for nobody else to read."""

import json
import os
from pathlib import Path

import pytest
from small_run import small_config

from ps_vae.errors import UsageError
from ps_vae.ps.gathering import Found
from ps_vae.ps.members import ShardMember
from ps_vae.ps.partition import partition
from ps_vae.train.durable import replace_file
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.shard import rules_of
from ps_vae.train.taking_up import KnownRun, check_unchanged, known_run

RUN, SECRET = bytes(range(16)), bytes(range(16, 32))


def written(path: Path) -> RunFolder:
    folder = RunFolder(path)
    KnownRun(RUN, SECRET, 7, 2, 3).write(folder)
    return folder


def test_the_next_start_has_the_run_and_its_secret_again(tmp_path: Path) -> None:
    known = known_run(written(tmp_path), 32)

    assert known == KnownRun(RUN, SECRET, 7, 2, 4)
    assert known is not None
    assert known.tickets == 3 << 32


def test_a_run_of_more_shards_than_its_parameters_make_is_not_known(tmp_path: Path) -> None:
    assert known_run(written(tmp_path), 16) is None


@pytest.mark.parametrize("was", [None, 0o644, 0o666])
@pytest.mark.parametrize("name", ["servers.json", "servers.json.partial"])
def test_the_secret_is_in_a_file_for_its_owner_alone_whatever_was_there_before(
    tmp_path: Path, name: str, was: int | None
) -> None:
    if was is not None:
        (tmp_path / name).write_text("{}")
        (tmp_path / name).chmod(was)
    before = os.umask(0)
    try:
        written(tmp_path)
    finally:
        os.umask(before)

    assert [path.name for path in tmp_path.iterdir()] == ["servers.json"]
    assert (tmp_path / "servers.json").stat().st_mode & 0o777 == 0o600
    assert SECRET.hex() in (tmp_path / "servers.json").read_text()


def test_other_files_are_as_open_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "file", b"open")
    finally:
        os.umask(before)

    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("change", [{}, {"secret": "00"}, {"secret": "x" * 32}, {"secret": None}])
def test_a_run_whose_secret_is_not_there_is_not_known(tmp_path: Path, change: dict[str, str | None]) -> None:
    folder = written(tmp_path)
    plain = json.loads((tmp_path / "servers.json").read_text())
    del plain["secret"]
    folder.write_servers(plain | change)

    assert known_run(folder, 32) is None


@pytest.mark.parametrize(("aggregate", "expected"), [("mean", b""), ("median", SECRET), ("trimmed:0.3", SECRET)])
def test_the_rules_have_the_secret_where_there_is_an_aggregation(aggregate: str, expected: bytes) -> None:
    assert rules_of(small_config(aggregate=aggregate), RUN, 0, SECRET).secret == expected


FOUND = Found(tuple(ShardMember(number, piece, before=2478) for number, piece in enumerate(partition(32, 2))), {})


def test_a_run_that_was_found_may_be_said_again_as_it_is(tmp_path: Path) -> None:
    check_unchanged(RunFolder(tmp_path), FOUND, small_config(), small_config(), 2)


def test_a_run_that_was_found_cannot_be_changed_and_each_change_is_named(tmp_path: Path) -> None:
    now = small_config(steps=7, checkpoint_every=5, learning_rate=0.01)

    with pytest.raises(UsageError) as refused:
        check_unchanged(RunFolder(tmp_path), FOUND, small_config(checkpoint_every=9), now, 3)

    expected = (
        "at version 2,478",
        "--steps 6, not 7",
        "--checkpoint-every 9, not 5",
        "--learning-rate 0.001, not 0.01",
    )
    assert [part for part in (*expected, "2 shards, not 3") if part not in str(refused.value)] == []


def test_what_is_known_is_shown_without_its_secret() -> None:
    assert "secret" not in repr(KnownRun(RUN, SECRET, 7, 2))
