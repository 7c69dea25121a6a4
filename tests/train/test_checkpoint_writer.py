"""The thread that writes checkpoints: nothing is lost, nothing is kept back, and what fails is told."""

from pathlib import Path

import numpy as np
import pytest
from small_run import small_config

from ps_vae.ps.messages import Snapshot
from ps_vae.ps.partition import partition
from ps_vae.ps.state import ShardState
from ps_vae.train import checkpoint_writer
from ps_vae.train.checkpoint import Checkpoint, list_checkpoints, read, write
from ps_vae.train.checkpoint_writer import CheckpointWriter, assemble
from ps_vae.vae.layout import ParameterLayout

LAYOUT = ParameterLayout(small_config().model)


def zeros(version: int) -> Checkpoint:
    return Checkpoint(ShardState(version, LAYOUT.zeros(), {}), (0.0, 0.0))


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
    ("failure", "told"), [(OSError(28, "No space left on device"), "No space left"), (MemoryError(), "memory")]
)
def test_a_checkpoint_that_cannot_be_written_is_told_and_the_next_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, told: str
) -> None:

    def fails_once(folder: Path, layout: ParameterLayout, checkpoint: Checkpoint, *, keep: int) -> Path:
        if checkpoint.version == 1:
            raise failure
        return write(folder, layout, checkpoint, keep=keep)

    monkeypatch.setattr(checkpoint_writer, "write", fails_once)
    writer = CheckpointWriter(tmp_path, LAYOUT, keep=2)
    for version in (1, 2):
        writer.submit(zeros(version))
    writer.close()
    failed, written = writer.finished()
    assert (failed.version, failed.path) == (1, None)
    assert isinstance(failed.error, OSError)
    assert told in str(failed.error)
    assert (written.version, written.error) == (2, None)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002.safetensors"]


@pytest.mark.parametrize("shards", [1, 3])
def test_the_shards_parts_are_put_together_in_order_and_copied(tmp_path: Path, shards: int) -> None:
    whole = [np.arange(LAYOUT.size, dtype=np.float32) + 0.5 * part for part in range(3)]
    expected = [vector.copy() for vector in whole]
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
    assembled = assemble(LAYOUT, 7, parts)
    for vector in whole:
        vector[:] = -1  # the shards' buffers go on being used
    assert (assembled.version, assembled.metrics) == (7, (-1.5, 0.25))
    np.testing.assert_array_equal(assembled.state.weights, expected[0])
    assert list(assembled.state.optimizer) == ["first_moment", "second_moment"]
    np.testing.assert_array_equal(assembled.state.optimizer["first_moment"], expected[1])
    np.testing.assert_array_equal(assembled.state.optimizer["second_moment"], expected[2])

    writer = CheckpointWriter(tmp_path, LAYOUT, keep=1)
    writer.submit(assembled)
    writer.close()
    (done,) = writer.finished()
    assert done.path is not None
    views = LAYOUT.views(expected[0])
    found = LAYOUT.views(read(done.path, LAYOUT).state.weights)
    assert all(np.array_equal(found[name], views[name]) for name in views)
