"""The thread that writes checkpoints: nothing is lost, nothing is kept back, and what fails is told."""

import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from small_run import small_config

from ps_vae.ps.messages import Snapshot
from ps_vae.ps.outbox import SnapshotTaken
from ps_vae.ps.partition import partition
from ps_vae.train import checkpoint_writer
from ps_vae.train.checkpoint import Checkpoint, list_checkpoints, read, write
from ps_vae.train.checkpoint_writer import CheckpointWriter, assemble
from ps_vae.vae.layout import ParameterLayout

LAYOUT = ParameterLayout(small_config().model)


def zeros(version: int) -> SnapshotTaken:
    return SnapshotTaken(version, (Snapshot(bytes(16), 0, version, (0.0, 0.0), (), (LAYOUT.zeros(),)),))


def test_what_was_submitted_is_written_in_order_and_told_once(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, LAYOUT, keep=2)
    for version in (1, 2, 3):
        writer.submit(zeros(version))
    writer.close()
    outcomes = writer.finished()
    assert [(done.version, done.error) for done in outcomes] == [(1, None), (2, None), (3, None)]
    assert [done.path for done in outcomes][1:] == list_checkpoints(tmp_path)[::-1]
    assert writer.finished() == []


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OSError(28, "No space left on device"), "No space left on device; free some space"),
        (OSError(5, "Input/output error"), "[Errno 5] Input/output error"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("a fault of ours"), "a fault of ours"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_told_and_the_next_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, told: str
) -> None:

    def fails_once(folder: Path, layout: ParameterLayout, checkpoint: Checkpoint) -> Path:
        if checkpoint.version == 1:
            raise failure
        return write(folder, layout, checkpoint)

    monkeypatch.setattr(checkpoint_writer, "write", fails_once)
    writer = CheckpointWriter(tmp_path, LAYOUT, keep=2)
    for version in (1, 2):
        writer.submit(zeros(version))
    writer.close()
    failed, written = writer.finished()
    assert (failed.version, failed.path) == (1, None)
    assert failed.line == f"WARNING: checkpoint of version 1 could not be written: {told}; training goes on"
    assert (written.version, written.error) == (2, None)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002.safetensors"]


def test_a_checkpoint_beside_which_older_ones_cannot_be_removed_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(checkpoint_writer, "prune", refuse)
    writer = CheckpointWriter(tmp_path, LAYOUT, keep=1)
    writer.submit(zeros(1))
    writer.close()
    (written,) = writer.finished()
    assert written.path == tmp_path / "step-00000001.safetensors"
    assert written.failure == ""
    assert written.line.startswith(f"WARNING: checkpoint {written.path} is written, but older ones could not")


class SlowDisk:
    """Writes that last until they are told to end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_writing = threading.Event()
        self.may_end = threading.Event()
        monkeypatch.setattr(checkpoint_writer, "write", self._write)

    def _write(self, folder: Path, layout: ParameterLayout, checkpoint: Checkpoint) -> Path:
        self.is_writing.set()
        assert self.may_end.wait(60)
        return write(folder, layout, checkpoint)


def test_a_slow_disk_gets_the_newest_and_no_more_than_memory_is_meant_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    monkeypatch.setattr(checkpoint_writer, "_WAITING_BYTES", 2 * LAYOUT.zeros().nbytes)
    writer = CheckpointWriter(tmp_path, LAYOUT, keep=9)
    writer.submit(zeros(1))
    assert disk.is_writing.wait(60)
    for version in range(2, 8):
        writer.submit(zeros(version))
    disk.may_end.set()
    writer.close()
    outcomes = writer.finished()
    assert [done.version for done in outcomes if done.path is not None] == [1, 6, 7]
    left_out = [done for done in outcomes if done.path is None]
    assert [done.version for done in left_out] == [2, 3, 4, 5]
    assert all("left out" in done.line for done in left_out)


def test_one_checkpoint_larger_than_that_still_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)
    monkeypatch.setattr(checkpoint_writer, "_WAITING_BYTES", 0)
    writer = CheckpointWriter(tmp_path, LAYOUT, keep=9)
    writer.submit(zeros(1))
    assert disk.is_writing.wait(60)
    writer.submit(zeros(2))
    disk.may_end.set()
    writer.close()
    assert [done.path is not None for done in writer.finished()] == [True, True]


@pytest.mark.parametrize("failure", [None, OSError(28, "No space left on device")])
def test_what_was_written_or_refused_is_let_go_of_while_the_next_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError | None
) -> None:
    def perhaps(folder: Path, layout: ParameterLayout, checkpoint: Checkpoint) -> Path:
        if failure is not None:
            raise failure
        return write(folder, layout, checkpoint)

    monkeypatch.setattr(checkpoint_writer, "write", perhaps)
    writer = CheckpointWriter(tmp_path, LAYOUT, keep=1)
    snapshot = zeros(1)
    gone = threading.Event()
    weakref.finalize(snapshot.parts[0].payload[0], gone.set)
    writer.submit(snapshot)
    del snapshot
    assert gone.wait(60)
    assert len(writer.finished()) == 1
    writer.close()


@pytest.mark.parametrize("shards", [1, 3])
def test_the_shards_parts_are_put_together_in_order(tmp_path: Path, shards: int) -> None:
    whole = [np.arange(LAYOUT.size, dtype=np.float32) + 0.5 * part for part in range(3)]
    parts = tuple(
        Snapshot(
            run=bytes(16),
            shard=shard,
            version=7,
            metrics=(-1.5, 0.25),
            names=("first_moment", "second_moment"),
            payload=tuple(vector[piece.start : piece.stop] for vector in whole),
        )
        for shard, piece in enumerate(partition(LAYOUT.size, shards))
    )
    taken = SnapshotTaken(7, parts)
    assembled = assemble(taken)
    assert (assembled.version, assembled.metrics) == (7, (-1.5, 0.25))
    np.testing.assert_array_equal(assembled.state.weights, whole[0])
    assert list(assembled.state.optimizer) == ["first_moment", "second_moment"]
    np.testing.assert_array_equal(assembled.state.optimizer["first_moment"], whole[1])
    np.testing.assert_array_equal(assembled.state.optimizer["second_moment"], whole[2])

    writer = CheckpointWriter(tmp_path, LAYOUT, keep=1)
    writer.submit(taken)
    writer.close()
    (done,) = writer.finished()
    assert done.path is not None
    views = LAYOUT.views(whole[0])
    found = LAYOUT.views(read(done.path, LAYOUT).state.weights)
    assert all(np.array_equal(found[name], views[name]) for name in views)


def test_shards_that_do_not_fit_together_are_told_and_the_next_one_is_written(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, LAYOUT, keep=1)
    writer.submit(SnapshotTaken(1, zeros(1).parts * 2))
    writer.submit(zeros(2))
    writer.close()
    assert [(done.version, done.path is not None) for done in writer.finished()] == [(1, False), (2, True)]
