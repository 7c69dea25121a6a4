"""What was written is what is read, or it is not read at all."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_run import small_config
from stored import assert_same_bits, file_names, stored

from ps_vae.errors import CheckpointError
from ps_vae.optim.table import OPTIMIZERS
from ps_vae.train.checkpoint import Checkpoint, Damaged, list_checkpoints, newest, prune, read, write
from ps_vae.vae.layout import ParameterLayout

LAYOUT = ParameterLayout(small_config().model)


def filled(version: int, optimizer: str = "adam") -> Checkpoint:
    return stored(LAYOUT, version, OPTIMIZERS[optimizer].state_names)


def write_and_prune(folder: Path, checkpoint: Checkpoint, *, keep: int) -> None:
    write(folder, LAYOUT, checkpoint)
    prune(folder, checkpoint.version, keep=keep)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_optimizer_state_and_metrics_come_back_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    written = filled(1234, optimizer)
    path = write(tmp_path / "checkpoints", LAYOUT, written)
    assert path.name == "step-00001234.safetensors"
    assert_same_bits(read(path, LAYOUT), written)


def test_other_programs_find_the_tensors_by_the_names_of_the_layout(tmp_path: Path) -> None:
    written = filled(3)
    tensors = load_file(write(tmp_path, LAYOUT, written))
    first = written.state.optimizer["first_moment"]
    np.testing.assert_array_equal(tensors["encoder.0.weight"], written.state.weights[: 64 * 8].reshape(64, 8))
    np.testing.assert_array_equal(tensors["optimizer/first_moment/encoder.0.weight"], first[: 64 * 8].reshape(64, 8))
    np.testing.assert_array_equal(tensors["metrics"], written.metrics)


def test_the_newest_are_kept_and_of_these_the_newest_is_taken(tmp_path: Path) -> None:
    for version in (10, 20, 9, 100_000_000):
        write_and_prune(tmp_path, filled(version), keep=2)
    assert file_names(tmp_path) == ["step-00000020.safetensors", "step-100000000.safetensors"]
    assert [path.name for path in list_checkpoints(tmp_path)] == file_names(tmp_path)[::-1]
    damaged: list[Damaged] = []
    assert_same_bits(newest(tmp_path, LAYOUT, damaged), filled(100_000_000))
    assert damaged == []


def test_a_damaged_later_checkpoint_does_not_push_out_those_of_the_run_that_went_on_before_it(tmp_path: Path) -> None:
    for version in (10, 20):
        write_and_prune(tmp_path, filled(version), keep=2)
    (tmp_path / "step-00000020.safetensors").write_bytes(b"damaged")
    write_and_prune(tmp_path, filled(15), keep=1)
    assert_same_bits(newest(tmp_path, LAYOUT, []), filled(15))


def test_a_version_that_is_reached_again_takes_the_place_of_the_damaged_one(tmp_path: Path) -> None:
    path = write(tmp_path, LAYOUT, filled(20))
    path.write_bytes(path.read_bytes()[:-1])
    write(tmp_path, LAYOUT, filled(20))
    assert_same_bits(read(path, LAYOUT), filled(20))


def test_there_is_no_newest_where_nothing_was_written(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere", LAYOUT, []) is None
    assert newest(tmp_path, LAYOUT, []) is None


def test_what_a_killed_writer_left_behind_is_ignored(tmp_path: Path) -> None:
    path = write(tmp_path, LAYOUT, filled(1))
    path.with_name("step-00000002.safetensors.partial").write_bytes(path.read_bytes())
    path.with_name("step-00000003.safetensors.partial").write_bytes(b"")
    path.with_name("step-4.safetensors").write_bytes(b"")
    damaged: list[Damaged] = []
    assert_same_bits(newest(tmp_path, LAYOUT, damaged), filled(1))
    assert damaged == []


def test_a_checkpoint_of_other_widths_is_refused_with_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    path = write(tmp_path, LAYOUT, filled(5))
    wider = ParameterLayout(small_config(hidden=(9,)).model)
    with pytest.raises(CheckpointError) as caught:
        newest(tmp_path, wider, [])
    text = str(caught.value)
    assert [word for word in (str(path), "encoder.0.weight", "(64, 8)", "(64, 9)") if word not in text] == []


def test_a_checkpoint_without_a_tensor_is_refused_with_its_name_and_shape(tmp_path: Path) -> None:
    write(tmp_path, LAYOUT, filled(5))
    deeper = ParameterLayout(small_config(hidden=(8, 8)).model)
    with pytest.raises(CheckpointError, match=r"no encoder\.1\.weight, this run expects \(8, 8\)"):
        newest(tmp_path, deeper, [])


@pytest.mark.parametrize(("option", "value"), [("activation", "tanh"), ("likelihood", "gaussian")])
def test_a_checkpoint_of_another_model_with_the_same_tensors_is_refused(
    tmp_path: Path, option: str, value: str
) -> None:
    write(tmp_path, LAYOUT, filled(5))
    other = ParameterLayout(small_config(**{option: value}).model)
    assert [(t.name, t.shape) for t in other] == [(t.name, t.shape) for t in LAYOUT]
    with pytest.raises(CheckpointError, match=f"relu.*bernoulli.*this run is .*{value}"):
        newest(tmp_path, other, [])


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
    folder.mkdir()
    write(folder, LAYOUT, filled(1))
    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    monkeypatch.setattr(os, "unlink", noting_unlink)
    write_and_prune(folder, filled(2), keep=1)
    assert events == [
        "flush step-00000002.safetensors.partial",
        "rename step-00000002.safetensors.partial",
        "flush checkpoints",
        "delete step-00000001.safetensors",
    ]
