"""A file that is written whole: whatever happens on the way, either it is all there or it is as it was."""

import os
from pathlib import Path

import pytest

from ps_vae.data.whole import whole
from ps_vae.errors import PsVaeError


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
@pytest.mark.parametrize("there", [True, False])
def test_a_writer_that_breaks_off_leaves_nothing(tmp_path: Path, error: type[BaseException], there: bool) -> None:
    path = tmp_path / "a.csv"
    if there:
        path.write_text("before")

    def write() -> None:
        with whole(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert [each.read_text() for each in tmp_path.iterdir()] == ["before"] * there


def test_a_new_file_has_the_mode_of_any_other_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    other.write_text("")
    with whole(path) as partial:
        partial.write_text("first")
    assert path.stat().st_mode == other.stat().st_mode
    path.chmod(0o600)
    with whole(path) as partial:
        partial.write_text("second")
    assert (path.stat().st_mode & 0o777, path.read_text()) == (0o600, "second")


def test_a_link_leads_where_it_led(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "there" / "a.csv")
    with whole(tmp_path / "link.csv") as partial:
        partial.write_text("all")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "there" / "a.csv").read_text() == "all"


def test_what_the_disk_refuses_is_told_by_the_name_that_was_given(tmp_path: Path) -> None:
    says = r"gone/a.csv: cannot be written \(No such file or directory\).*another name"
    with pytest.raises(PsVaeError, match=says), whole(tmp_path / "gone" / "a.csv"):
        pass
    name = tmp_path / ("x" * 251 + ".csv")
    with whole(name) as partial:
        partial.write_text("a name as long as can be")
    assert os.listdir(tmp_path) == [name.name]
