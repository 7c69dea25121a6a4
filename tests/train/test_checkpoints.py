"""What was written is what is read, or it is not read at all."""

import os
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from small_run import small_config

from ps_vae.errors import CheckpointError
from ps_vae.optim.table import OPTIMIZERS
from ps_vae.ps.state import ShardState
from ps_vae.train import checkpoint
from ps_vae.train.checkpoint import Checkpoint, Damaged, list_checkpoints, newest, read, write
from ps_vae.vae.layout import ParameterLayout

LAYOUT = ParameterLayout(small_config().model)


def filled(version: int, optimizer: str = "adam") -> Checkpoint:
    """Every element of every tensor another number, NaN, infinities and -0 among them; padding zero, as in a run."""
    random = np.random.default_rng(version)
    names = OPTIMIZERS[optimizer].state_names
    vectors = [LAYOUT.zeros() for _ in range(1 + len(names))]
    for vector in vectors:
        for view in LAYOUT.views(vector).values():
            view[...] = random.standard_normal(view.shape)
    vectors[0][:5] = [np.nan, np.inf, -np.inf, -0.0, 1e-45]
    state = ShardState(version, vectors[0], dict(zip(names, vectors[1:], strict=True)))
    return Checkpoint(state, (float(random.standard_normal()), 0.1 + version))


def assert_same_bits(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    assert found.version == expected.version
    assert found.metrics == expected.metrics
    assert found.state.weights.tobytes() == expected.state.weights.tobytes()
    assert list(found.state.optimizer) == list(expected.state.optimizer)
    for name, vector in expected.state.optimizer.items():
        assert found.state.optimizer[name].tobytes() == vector.tobytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_optimizer_state_and_metrics_come_back_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    written = filled(1234, optimizer)
    path = write(tmp_path / "checkpoints", LAYOUT, written, keep=3)
    assert path.name == "step-00001234.safetensors"
    assert_same_bits(read(path, LAYOUT), written)


def test_other_programs_find_the_tensors_by_the_names_of_the_layout(tmp_path: Path) -> None:
    written = filled(3)
    tensors = load_file(write(tmp_path, LAYOUT, written, keep=3))
    first = written.state.optimizer["first_moment"]
    np.testing.assert_array_equal(tensors["encoder.0.weight"], written.state.weights[: 64 * 8].reshape(64, 8))
    np.testing.assert_array_equal(tensors["optimizer/first_moment/encoder.0.weight"], first[: 64 * 8].reshape(64, 8))
    np.testing.assert_array_equal(tensors["metrics"], written.metrics)


def test_the_newest_are_kept_and_of_these_the_newest_is_taken(tmp_path: Path) -> None:
    for version in (10, 20, 9, 100_000_000):
        write(tmp_path, LAYOUT, filled(version), keep=2)
    assert names(tmp_path) == ["step-00000020.safetensors", "step-100000000.safetensors"]
    assert [path.name for path in list_checkpoints(tmp_path)] == names(tmp_path)[::-1]
    damaged: list[Damaged] = []
    assert_same_bits(newest(tmp_path, LAYOUT, damaged), filled(100_000_000))
    assert damaged == []


def test_a_damaged_later_checkpoint_does_not_push_out_those_of_the_run_that_went_on_before_it(tmp_path: Path) -> None:
    for version in (10, 20):
        write(tmp_path, LAYOUT, filled(version), keep=2)
    (tmp_path / "step-00000020.safetensors").write_bytes(b"damaged")
    write(tmp_path, LAYOUT, filled(15), keep=1)
    assert_same_bits(newest(tmp_path, LAYOUT, []), filled(15))


def test_a_version_that_is_reached_again_takes_the_place_of_the_damaged_one(tmp_path: Path) -> None:
    path = write(tmp_path, LAYOUT, filled(20), keep=2)
    path.write_bytes(path.read_bytes()[:-1])
    write(tmp_path, LAYOUT, filled(20), keep=2)
    assert_same_bits(read(path, LAYOUT), filled(20))


def test_there_is_no_newest_where_nothing_was_written(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere", LAYOUT, []) is None
    assert newest(tmp_path, LAYOUT, []) is None


@cache
def file_of(version: int) -> bytes:
    """The contents of a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder), LAYOUT, filled(version), keep=1).read_bytes()


def assert_falls_back(newer: bytes) -> None:
    """Checkpoint 2 with the contents `newer` is reported as damaged, and checkpoint 1 is taken."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = (Path(folder, f"step-0000000{version}.safetensors") for version in (1, 2))
        first.write_bytes(file_of(1))
        second.write_bytes(newer)
        with pytest.raises(CheckpointError, match="step-00000002"):
            read(second, LAYOUT)
        damaged: list[Damaged] = []
        assert_same_bits(newest(Path(folder), LAYOUT, damaged), filled(1))
        assert [file.path for file in damaged] == [second]
        assert str(second) in damaged[0].why


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_file_with_one_flipped_bit_is_never_loaded(data: st.DataObject) -> None:
    newer = file_of(2)
    header = 8 + int.from_bytes(newer[:8], "little")
    # Half of the draws in the header, where a flip changes the meaning and not only a number.
    offset = data.draw(st.integers(0, header - 1) | st.integers(header, len(newer) - 1), label="offset")
    flipped = bytearray(newer)
    flipped[offset] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    assert_falls_back(bytes(flipped))


def test_no_flipped_bit_of_the_version_the_model_or_the_digest_is_overlooked(tmp_path: Path) -> None:
    newer = file_of(2)
    start = newer.index(b"__metadata__")
    stop = newer.index(b"}", newer.index(b"sha256", start))
    path = tmp_path / "step-00000002.safetensors"
    loaded = []
    for offset in range(start, stop):
        flipped = bytearray(newer)
        flipped[offset] ^= 1 << offset % 8
        path.write_bytes(flipped)
        if newest(tmp_path, LAYOUT, []) is not None:
            loaded.append(offset)
    assert loaded == []


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_file_that_was_cut_off_is_never_loaded(data: st.DataObject) -> None:
    newer = file_of(2)
    assert_falls_back(newer[: data.draw(st.integers(0, len(newer) - 1), label="length")])


def test_what_a_killed_writer_left_behind_is_ignored(tmp_path: Path) -> None:
    path = write(tmp_path, LAYOUT, filled(1), keep=2)
    path.with_name("step-00000002.partial").write_bytes(path.read_bytes())
    path.with_name("step-00000003.safetensors.partial").write_bytes(b"")
    path.with_name("step-4.safetensors").write_bytes(b"")
    damaged: list[Damaged] = []
    assert_same_bits(newest(tmp_path, LAYOUT, damaged), filled(1))
    assert damaged == []


def test_a_checkpoint_of_other_widths_is_refused_with_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    path = write(tmp_path, LAYOUT, filled(5), keep=2)
    wider = ParameterLayout(small_config(hidden=(9,)).model)
    with pytest.raises(CheckpointError) as caught:
        newest(tmp_path, wider, [])
    text = str(caught.value)
    assert [word for word in (str(path), "encoder.0.weight", "(64, 8)", "(64, 9)") if word not in text] == []


def test_a_checkpoint_without_a_tensor_is_refused_with_its_name_and_shape(tmp_path: Path) -> None:
    write(tmp_path, LAYOUT, filled(5), keep=2)
    deeper = ParameterLayout(small_config(hidden=(8, 8)).model)
    with pytest.raises(CheckpointError, match=r"no encoder\.1\.weight, this run expects \(8, 8\)"):
        newest(tmp_path, deeper, [])


@pytest.mark.parametrize(("option", "value"), [("activation", "tanh"), ("likelihood", "gaussian")])
def test_a_checkpoint_of_another_model_with_the_same_tensors_is_refused(
    tmp_path: Path, option: str, value: str
) -> None:
    write(tmp_path, LAYOUT, filled(5), keep=2)
    other = ParameterLayout(small_config(**{option: value}).model)
    assert [(t.name, t.shape) for t in other] == [(t.name, t.shape) for t in LAYOUT]
    with pytest.raises(CheckpointError, match=f"relu.*bernoulli.*this run is .*{value}"):
        newest(tmp_path, other, [])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_older_checkpoints_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    write(tmp_path, LAYOUT, filled(1), keep=1)
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, LAYOUT, filled(2), keep=1)
    assert names(tmp_path) == ["step-00000001.safetensors"]
    assert_same_bits(newest(tmp_path, LAYOUT, []), filled(1))


def test_a_write_without_memory_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> bytes:
        raise MemoryError

    write(tmp_path, LAYOUT, filled(1), keep=1)
    monkeypatch.setattr(checkpoint, "save", refuse)
    with pytest.raises(MemoryError):
        write(tmp_path, LAYOUT, filled(2), keep=1)
    assert names(tmp_path) == ["step-00000001.safetensors"]


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renamed after the flush of its contents, and the rename flushed too; older ones go last."""
    events: list[str] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def noting_fsync(descriptor: int) -> None:
        events.append(f"flush {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def noting_replace(old: Path, new: Path) -> None:
        events.append(f"rename {Path(old).name}")
        replace(old, new)

    def noting_unlink(path: Path) -> None:
        events.append(f"delete {Path(path).name}")
        unlink(path)

    folder = tmp_path / "checkpoints"
    write(folder, LAYOUT, filled(1), keep=1)
    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    monkeypatch.setattr(os, "unlink", noting_unlink)
    write(folder, LAYOUT, filled(2), keep=1)
    assert events == [
        "flush step-00000002.partial",
        "rename step-00000002.partial",
        "flush checkpoints",
        "delete step-00000001.safetensors",
    ]
