"""A run that is resumed and stopped before its first step is left as it was."""

from pathlib import Path

import pytest
from small_run import small_config, small_weights

from ps_vae.train.checkpoint import Checkpoint, list_checkpoints, write
from ps_vae.train.plan import Wishes
from ps_vae.train.processes import StopSignal
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.server import serve
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.update import fresh_state
from ps_vae.vae.layout import ParameterLayout


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of a run of six steps that was stopped at its third, in the middle of a line."""
    config, folder = small_config(steps=6, checkpoint_every=6), RunFolder(tmp_path / "run")
    folder.create(config)
    state = fresh_state(config, small_weights(config))
    state.version = 3
    write(folder.checkpoints, ParameterLayout(config.model), Checkpoint(state, (-1546.46, 108.21)))
    return folder


def resume_and_stop(folder: RunFolder) -> None:
    should_stop = StopSignal()
    should_stop.count = 1
    options = ServerOptions(listen=f"ipc://{folder.path.parent}/server", run_dir=folder.path, resume=True)
    result = serve(Wishes(), options, say=lambda text: None, should_stop=should_stop)
    assert (result["version"], result["reason"]) == (3, "stopped")


def test_the_last_checkpoint_keeps_every_byte(folder: RunFolder) -> None:
    (path,) = list_checkpoints(folder.checkpoints)
    before = path.read_bytes()

    resume_and_stop(folder)

    assert list_checkpoints(folder.checkpoints) == [path]
    assert path.read_bytes() == before


def test_steps_that_are_in_no_line_yet_are_still_there(folder: RunFolder) -> None:
    unfinished = {"kind": "unfinished", "version": 3, "steps": 3, "sums": [-1.0, 2.0], "staleness": 0}
    folder.rewrite_metrics([unfinished])

    resume_and_stop(folder)

    assert folder.metrics() == [unfinished]
