"""The cache of parsed data: made once, re-made where damaged, never in the way."""

import numpy as np
import pytest

from ps_vae.data.cache import cached, user_cache

ARRAY = np.arange(12, dtype=np.uint8).reshape(4, 3)


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return ARRAY.copy()


def get(path, make):
    return cached(path, np.dtype(np.uint8), (4, 3), make)


def test_an_array_is_made_once_and_mapped_afterwards(tmp_path):
    make = Maker()
    path = tmp_path / "deep" / "er" / "x.npy"
    for _ in range(3):
        array = get(path, make)
        assert isinstance(array, np.memmap)
        assert np.array_equal(array, ARRAY)
    assert make.calls == 1
    assert [file.name for file in path.parent.iterdir()] == ["x.npy"]


@pytest.mark.parametrize("damage", ["truncated", "longer", "empty", "another shape", "another type", "text"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    path, make = tmp_path / "x.npy", Maker()
    get(path, make)
    content = path.read_bytes()
    if damage.startswith("another"):
        np.save(path, ARRAY.T if damage == "another shape" else ARRAY.view(np.int8))
    else:
        path.write_bytes({"truncated": content[:-1], "longer": content + b"x", "empty": b"", "text": b"hello"}[damage])
    assert np.array_equal(get(path, make), ARRAY)
    assert path.read_bytes() == content
    assert make.calls == 2


def test_without_a_folder_that_can_be_written_the_array_is_still_returned(tmp_path):
    (tmp_path / "file").write_text("in the way")
    make = Maker()
    assert np.array_equal(get(tmp_path / "file" / "x.npy", make), ARRAY)
    assert make.calls == 1


def test_nothing_is_left_where_keeping_fails(tmp_path):
    (tmp_path / "x.npy").mkdir()
    assert np.array_equal(get(tmp_path / "x.npy", Maker()), ARRAY)
    assert [file.name for file in tmp_path.iterdir()] == ["x.npy"]


def test_nothing_is_left_where_making_fails(tmp_path):
    def fail():
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        get(tmp_path / "x.npy", fail)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_where_the_xdg_specification_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "ps_vae"
    monkeypatch.setenv("HOME", "/home/somebody")
    for not_absolute in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", not_absolute)
        assert str(user_cache()) == "/home/somebody/.cache/ps_vae"
