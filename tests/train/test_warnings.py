"""What a server warns of reaches whoever watches `ps-vae train`, and a warning that repeats is not said each time."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_run import small_config, small_weights

from ps_vae.train.checkpoint import Checkpoint, write
from ps_vae.train.checkpoint_writer import CheckpointWriter, Written
from ps_vae.train.first_server import FirstServer
from ps_vae.train.local import LocalCluster
from ps_vae.train.plan import Wishes
from ps_vae.train.processes import StopSignal
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.server import serve
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.update import fresh_state
from ps_vae.vae.layout import ParameterLayout


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cluster(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """Of a server that says what `log` is given."""
    cluster = LocalCluster(Wishes(), ServerOptions(listen="", run_dir=tmp_path / "run"), 1, say=said.append)
    monkeypatch.setattr(cluster, "_children", {"workers": SimpleNamespace(poll=lambda: None)})
    monkeypatch.setattr(cluster, "_server", SimpleNamespace(watch=lambda say: None, code=None))
    (cluster._private / "server.log").touch()
    return cluster


@pytest.fixture
def log(cluster: LocalCluster) -> Callable[[str], None]:
    def append(text: str) -> None:
        with (cluster._private / "server.log").open("a") as file:
            file.write(text)

    return append


def test_every_warning_of_the_server_is_passed_on_as_it_comes(
    cluster: LocalCluster, log: Callable[[str], None], said: list[str]
) -> None:
    log("listening on ipc://x\nWARNING: checkpoint of version 3 could not be written\nstep 5 of 9\nWARN")
    cluster.poll()
    assert said == ["WARNING: checkpoint of version 3 could not be written"]

    log("ING: nobody evaluates the run\n\n")
    cluster.poll()
    cluster.poll()
    assert said[1:] == ["WARNING: nobody evaluates the run"]


def test_what_the_server_warned_of_at_its_very_end_is_passed_on(
    cluster: LocalCluster, log: Callable[[str], None], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(say: object) -> None:
        log("WARNING: run/result.json could not be written\n")
        monkeypatch.setattr(cluster, "_server", SimpleNamespace(watch=lambda say: None, code=0))

    monkeypatch.setattr(cluster, "_server", SimpleNamespace(watch=end, code=None))
    cluster.poll()

    assert cluster.is_done
    assert said == ["WARNING: run/result.json could not be written"]


def test_a_server_that_is_started_again_repeats_nothing(
    cluster: LocalCluster, log: Callable[[str], None], said: list[str]
) -> None:
    for _ in range(3):
        log("WARNING: the data have values of about 1e+06 in column 3\n")
        cluster.poll()

    assert said == ["WARNING: the data have values of about 1e+06 in column 3"]


def resume_and_stop(tmp_path: Path, said: list[str]) -> None:
    """A first server that takes up a run at version 5 and is told to stop at once."""
    config, folder = small_config(), RunFolder(tmp_path / "run")
    folder.create(config)
    state = fresh_state(config, small_weights(config))
    state.version = 5
    write(folder.checkpoints, ParameterLayout(config.model), Checkpoint(state, (-1.0, 1.0)))
    should_stop = StopSignal()
    should_stop.count = 1
    options = ServerOptions(listen=f"ipc://{tmp_path}/server", run_dir=folder.path, resume=True)
    serve(Wishes(), options, say=said.append, should_stop=should_stop)


def test_checkpoints_that_cannot_be_written_are_one_line_and_one_that_counts_the_others(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [Written(version, None, OSError(errno.ENOSPC, "No space left on device")) for version in range(1, 5)]
    finished = CheckpointWriter.finished
    monkeypatch.setattr(CheckpointWriter, "finished", lambda self: [full.pop(0) for _ in full[:]] + finished(self))

    resume_and_stop(tmp_path, said)

    first, others = [line for line in said if "could not be written" in line]
    assert first.startswith("WARNING: checkpoint of version 1 could not be written: No space left on device")
    assert others.startswith("WARNING: checkpoint of version 4 could not be written: No space left on device")
    assert "(3 like it in " in others


def test_metrics_that_a_disk_takes_and_refuses_in_turns_are_two_lines_and_two_that_count_the_others(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tick, full = FirstServer._tick, "run/metrics.jsonl could not be written: No space left on device"

    def tick_by_tick(self: FirstServer) -> None:
        for why in (full, "", full, "", full, ""):
            self._reports.unwritten = why
            tick(self)

    monkeypatch.setattr(FirstServer, "_tick", tick_by_tick)
    resume_and_stop(tmp_path, said)

    about = [line.removeprefix("WARNING: ") for line in said if "metrics.jsonl" in line]
    assert about[:2] == [f"{full}; training goes on", "metrics.jsonl is written again; training goes on"]
    assert len(about) == 4
    assert all(re.search(r" \(\d+ like it in ", line) for line in about[2:])
