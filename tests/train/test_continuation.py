"""The same command line begins a run, continues it, and says that it is over."""

import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import PATIENCE, Processes, words
from small_run import small_config

from ps_vae.errors import UsageError
from ps_vae.train.continuation import begun_or_resumed, ended_before, run_dir_of
from ps_vae.train.plan import Wishes
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.run_lock import LOCK
from ps_vae.train.server_options import ServerOptions

RUN = ["--data", "digits", "--hidden", "8", "--latent", "2", "--batch-size", "64", "--microbatch", "16"]
STEPS = 600


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_where_there_is_no_run_the_words_begin_one(folder: RunFolder) -> None:
    wishes, options = Wishes(steps=3), ServerOptions(run_dir=folder.path, communication="auto")

    assert begun_or_resumed(wishes, options) == (wishes, options)


def test_where_there_is_one_they_continue_it(folder: RunFolder) -> None:
    folder.create(small_config())
    wishes, options = Wishes(steps=3), ServerOptions(run_dir=folder.path, keep=5)

    assert begun_or_resumed(wishes, options) == (wishes, dataclasses.replace(options, resume=True))


def test_what_was_chosen_is_not_chosen_again_and_the_steps_are_those_of_then(folder: RunFolder) -> None:
    folder.create(small_config())

    wishes, options = begun_or_resumed(Wishes(steps=3), ServerOptions(run_dir=folder.path, communication="auto"))

    assert wishes == Wishes()
    assert (options.resume, options.communication) == (True, "manual")


@pytest.mark.parametrize("left", [LOCK, "run.json.partial"])
def test_what_a_server_leaves_that_is_killed_before_there_is_a_run_is_in_nobodys_way(
    folder: RunFolder, left: str
) -> None:
    folder.path.mkdir()
    (folder.path / left).write_text("{")

    assert not begun_or_resumed(Wishes(), ServerOptions(run_dir=folder.path))[1].resume
    folder.create(small_config())
    assert folder.config() == small_config()


def test_without_a_folder_nobody_knows_which_run_is_meant() -> None:
    with pytest.raises(UsageError, match="--run-dir"):
        run_dir_of(ServerOptions())


@pytest.mark.parametrize("result", [None, {"failed": True, "version": 6}, {"failed": False, "version": 5}])
def test_a_run_at_its_end_whose_result_was_not_noted_is_over_all_the_same(
    folder: RunFolder, result: dict[str, object] | None
) -> None:
    folder.create(small_config(steps=6))
    if result is not None:
        folder.write_result(result)

    over = ended_before(folder.path)

    assert (over["version"], over["steps"], over["failed"]) == (6, 6, False)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    running = Processes(tmp_path)
    yield running
    running.close()


@pytest.fixture
def start(processes: Processes, tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts a server with the same words every time, and more."""

    def server(*more: str) -> subprocess.Popen[bytes]:
        always = ["--begin-or-resume", "--run-dir", "run", "--listen", f"ipc://{tmp_path}/s", "--json"]
        return processes.start(*words("server", *always, *RUN, "--steps", STEPS, "--checkpoint-every", 50, *more))

    return server


def test_one_command_line_sees_a_run_through_a_kill_to_its_end_and_then_says_so(
    start: Callable[..., subprocess.Popen[bytes]], processes: Processes, tmp_path: Path
) -> None:
    worker = processes.start(*words("worker", "--server", f"ipc://{tmp_path}/s", "--processes", 1))

    killed = start()
    processes.said(killed, "step-00000050")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    last = start()
    assert last.wait(PATIENCE) == 0, last.log.read_text()
    assert worker.wait(PATIENCE) == 0, worker.log.read_text()
    over = start("--supervise")
    assert over.wait(PATIENCE) == 0, over.log.read_text()

    assert "new weights" in killed.log.read_text()
    assert "continued from version" in last.log.read_text()
    assert "nothing is left to do" in over.log.read_text()
    results = [json.loads(process.log.read_text().splitlines()[-1]) for process in (last, over)]
    assert results[0] == results[1]
    assert (results[0]["version"], results[0]["failed"]) == (STEPS, False)


def test_words_of_another_run_are_refused(start: Callable[..., subprocess.Popen[bytes]], folder: RunFolder) -> None:
    folder.create(small_config())

    refused = start()

    assert refused.wait(PATIENCE) == 2
    assert "was 8 when the run began" in refused.log.read_text()
