"""Whatever a disk does to a checkpoint, it is noticed, and the one before it is taken."""

import itertools
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from stored import TINY, assert_same_bits, tiny

from ps_vae.errors import CheckpointError
from ps_vae.train import checkpoint
from ps_vae.train.checkpoint import Damaged, newest, read, write


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The contents of checkpoint 2."""
    return write(tmp_path_factory.mktemp("whole"), TINY, tiny(2)).read_bytes()


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Checkpoint 2, whose contents are to be damaged, beside a whole checkpoint 1."""
    write(tmp_path, TINY, tiny(1))
    return tmp_path / "step-00000002.safetensors"


def overlooked(path: Path, contents: Iterator[tuple[object, bytes]]) -> list[object]:
    """The damages with which the file at `path` is read all the same; any error but that of damage is raised."""
    loaded = []
    for damage, content in contents:
        path.write_bytes(content)
        try:
            read(path, TINY)
        except CheckpointError:
            continue
        loaded.append(damage)
    return loaded


def test_no_changed_byte_anywhere_in_the_file_is_overlooked(pair: Path, whole: bytes) -> None:
    def changed() -> Iterator[tuple[object, bytes]]:
        for offset in range(len(whole)):
            damaged = bytearray(whole)
            damaged[offset] ^= 1 << offset % 8
            yield offset, bytes(damaged)

    assert overlooked(pair, changed()) == []


def test_no_file_that_was_cut_off_is_loaded_whatever_its_length(pair: Path, whole: bytes) -> None:
    assert overlooked(pair, ((length, whole[:length]) for length in range(len(whole)))) == []


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b" "])
def test_no_sector_that_was_lost_is_overlooked(pair: Path, whole: bytes, filling: bytes) -> None:
    sectors = range(0, len(whole), 512)
    lost = ((at, whole[:at] + filling * len(whole[at : at + 512]) + whole[at + 512 :]) for at in sectors)
    assert overlooked(pair, lost) == []


# The folder is the same for all examples, its second file is not.
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_reported_and_the_one_before_it_is_taken(
    pair: Path, whole: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    pair.write_bytes(damaged)
    passed_over: list[Damaged] = []

    found = newest(pair.parent, TINY, passed_over)

    is_damaged = bytes(damaged) != whole
    assert_same_bits(found, tiny(1 if is_damaged else 2))
    assert [file.path for file in passed_over] == [pair] * is_damaged
    assert all(str(pair) in file.why for file in passed_over)


def with_header(header: object, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(64)


HOSTILE = {
    "a header of exabytes": with_header({}, 1 << 62),
    "a header longer than the file": with_header({}, 1 << 20),
    "terabytes of numbers": with_header(
        {"metrics": {"dtype": "F64", "shape": [1 << 40], "data_offsets": [0, 1 << 43]}}
    ),
    "a shape that overflows": with_header(
        {"metrics": {"dtype": "F64", "shape": [1 << 32, 1 << 32], "data_offsets": [0, 64]}}
    ),
    "no numbers in a huge shape": with_header(
        {
            "metrics": {"dtype": "F64", "shape": [0, 1 << 60], "data_offsets": [0, 0]},
            "rest": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]},
        }
    ),
    "numbers of another kind": with_header({"metrics": {"dtype": "F8_E4M3", "shape": [64], "data_offsets": [0, 64]}}),
    "numbers that overlap": with_header(
        {name: {"dtype": "F64", "shape": [8], "data_offsets": [0, 64]} for name in ("metrics", "more")}
    ),
    "brackets within brackets": struct.pack("<Q", 1 << 16) + b"[" * (1 << 16),
    "nothing": b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_claims_what_cannot_be_is_damaged(pair: Path, what: str) -> None:
    pair.write_bytes(HOSTILE[what])
    assert_same_bits(newest(pair.parent, TINY, []), tiny(1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *itertools.product(("version", "model", "optimizer"), (None, "what?")),
        ("model", '{"inputs": 4, "hidden": [2], "latent": 1, "depth": 7}'),
        ("optimizer", '["third_moment"]'),
    ],
)
def test_a_whole_file_with_other_contents_than_ours_is_refused_with_its_name(
    tmp_path: Path, key: str, value: str | None
) -> None:
    """As a later version might write it, with a digest that is right."""
    tensors = {name: np.ascontiguousarray(view) for name, view in TINY.views(tiny(1).state.weights).items()}
    tensors["metrics"] = np.zeros(2)
    model = json.dumps({"inputs": 4, "hidden": [2], "latent": 1})
    metadata = {"version": "1", "model": model, "optimizer": "[]"} | ({} if value is None else {key: value})
    if value is None:
        del metadata[key]
    metadata["sha256"] = checkpoint.digest_of(tensors, metadata)
    path = tmp_path / "step-00000001.safetensors"
    path.write_bytes(save(tensors, {"ps_vae": json.dumps(metadata)}))

    with pytest.raises(CheckpointError, match=r"step-00000001.*another version"):
        newest(tmp_path, TINY, [])
