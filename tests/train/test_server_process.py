"""A first server that is killed is continued by another; one that ended by itself, or was told to, is not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import PATIENCE, Processes, words

from ps_vae.train import server_process, supervisor
from ps_vae.train.plan import Wishes
from ps_vae.train.processes import StopSignal, stop_all
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.server_process import ServerProcess, supervise_server

CRASH, WAIT = "import os; os.kill(os.getpid(), 9)", "import signal; signal.pause()"
RUN = ["--data", "digits", "--hidden", "16", "--latent", "3", "--batch-size", "64", "--microbatch", "16"]
LENGTH = ["--steps", "1200", "--checkpoint-every", "100"]

Started = list[tuple[list[str], subprocess.Popen[bytes]]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[str]], Started]]:
    """play(codes): what is spawned runs these programs, in order; returns what was spawned, with its words."""
    started: Started = []

    def prepare(codes: list[str]) -> Started:
        def spawn_next(arguments: list[str], *, log: Path | None = None) -> subprocess.Popen[bytes]:
            child = subprocess.Popen([sys.executable, "-I", "-S", "-c", codes[len(started)]])
            started.append((arguments, child))
            return child

        monkeypatch.setattr(server_process, "spawn", spawn_next)
        return started

    monkeypatch.setattr(server_process, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE_SECONDS", 0.01)
    yield prepare
    stop_all([child for _, child in started], grace=0.0)


def begin_and_crash(folder: Path) -> str:
    """A program that leaves a run behind."""
    return f"import pathlib; pathlib.Path({str(folder / 'run' / 'run.json')!r}).touch(); {CRASH}"


def supervised(
    folder: Path, should_stop: StopSignal | None = None, *, resume: bool = False, more: str = "--json"
) -> int:
    options = ServerOptions(run_dir=folder / "run", communication="manual" if resume else "auto", resume=resume)
    stop = StopSignal() if should_stop is None else should_stop
    return supervise_server(Wishes(steps=3), options, more=[more], say=lambda text: None, should_stop=stop)


def test_a_server_that_was_killed_is_resumed_and_is_not_told_again_what_the_run_is(
    play: Callable[[list[str]], Started], tmp_path: Path
) -> None:
    started = play([begin_and_crash(tmp_path), "raise SystemExit(5)"])
    (tmp_path / "run").mkdir()

    assert supervised(tmp_path) == 5

    first, second = (arguments for arguments, _ in started)
    assert "--resume" not in first
    assert first[first.index("--steps") + 1] == "3"
    assert first[first.index("--communication") + 1] == "auto"
    assert "--resume" in second
    assert "--steps" not in second
    assert "--begin-or-resume" in second
    assert second[second.index("--communication") + 1] == "manual"
    assert all("--json" in arguments for arguments in (first, second))


def test_a_server_that_was_killed_before_it_had_made_its_folder_begins_anew(
    play: Callable[[list[str]], Started], tmp_path: Path
) -> None:
    started = play([CRASH, "raise SystemExit(0)"])

    assert supervised(tmp_path) == 0

    assert started[0][0] == started[1][0]


@pytest.mark.parametrize(("resume", "more"), [(True, "--json"), (False, "--begin-or-resume"), (False, "--json")])
def test_a_server_that_was_killed_where_there_was_a_run_before_is_told_the_same_again(
    play: Callable[[list[str]], Started], tmp_path: Path, resume: bool, more: str
) -> None:
    """Nothing in the folder says whether it had taken note of its words; without --resume they are refused again."""
    started = play([CRASH, "raise SystemExit(0)"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()

    assert supervised(tmp_path, resume=resume, more=more) == 0

    first, second = ([word for word in words if word != "--begin-or-resume"] for words, _ in started)
    assert first == second
    assert "--steps" in second
    # Then a run that is over is no fault.
    assert ("--begin-or-resume" in started[1][0]) == (resume or more == "--begin-or-resume")


def test_a_server_that_is_told_to_stop_is_not_followed(play: Callable[[list[str]], Started], tmp_path: Path) -> None:
    started = play([WAIT])
    stop = StopSignal()
    stop.count = 1

    assert supervised(tmp_path, stop) == 128 + signal.SIGTERM

    assert len(started) == 1


def test_a_stop_while_none_runs_is_the_end(play: Callable[[list[str]], Started], tmp_path: Path) -> None:
    play([CRASH])
    place = ServerProcess(Wishes(), ServerOptions(run_dir=tmp_path / "run"), more=[])
    place.child.wait()
    place.watch(lambda text: None)
    assert place.code is None

    place.stop()
    place.watch(lambda text: None)

    assert place.code == 128 + signal.SIGKILL


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    running = Processes(tmp_path)
    yield running
    running.close()


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def child_of(process: subprocess.Popen[bytes]) -> int:
    """The one process that it has started."""
    (child,) = children_of(process)
    return child


def test_a_supervised_server_that_is_killed_goes_on_and_so_do_its_workers(processes: Processes, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    server = processes.start(
        *words("server", "--supervise", "--listen", address, *RUN, *LENGTH, "--run-dir", "run", "--json")
    )
    worker = processes.start(*words("worker", "--server", address, "--processes", "1"))
    processes.said(server, "step-00000100")

    os.kill(child_of(server), signal.SIGKILL)

    assert server.wait(PATIENCE) == 0, server.log.read_text()
    assert worker.wait(PATIENCE) == 0, worker.log.read_text()
    told = server.log.read_text()
    assert "was killed by signal 9; another is started" in told
    assert "continued from version" in told
    peace = tmp_path / "peace"
    command = words("train", *RUN, *LENGTH, "--workers", 1, "--run-dir", str(peace), "--no-pictures")
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    name = "checkpoints/step-00001200.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (peace / name).read_bytes()


def test_a_server_that_is_killed_before_it_has_taken_note_of_more_steps_takes_them_all_the_same(
    processes: Processes, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/s"
    shorter = words("train", *RUN, "--steps", 100, "--workers", 1, "--run-dir", str(tmp_path / "run"), "--no-pictures")
    subprocess.run(shorter, check=True, capture_output=True, timeout=PATIENCE)
    before = (tmp_path / "run" / "run.json").read_bytes()
    server = processes.start(
        *words("server", "--supervise", "--listen", address, "--resume", "--run-dir", "run", "--steps", 200)
    )
    worker = processes.start(*words("worker", "--server", address, "--processes", "1"))
    processes.until(lambda: children_of(server))

    # It has not even read its words.
    os.kill(child_of(server), signal.SIGKILL)
    assert (tmp_path / "run" / "run.json").read_bytes() == before

    assert server.wait(PATIENCE) == 0, server.log.read_text()
    assert worker.wait(PATIENCE) == 0, worker.log.read_text()
    assert "was killed by signal 9; another is started" in server.log.read_text()
    assert (tmp_path / "run" / "checkpoints" / "step-00000200.safetensors").exists()


class Judged:
    """A supervised server with a worker and an evaluator, which stands still: nothing but its figures is missing."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.run = folder / "run"
        address = f"ipc://{folder}/s"
        self.server = processes.start(
            *words("server", "--supervise", "--listen", address, *RUN, "--steps", 600, "--checkpoint-every", 300),
            *("--run-dir", "run", "--json"),
        )
        self.evaluator = processes.start(*words("evaluator", "--server", address))
        processes.said(self.server, "joined: evaluator")
        os.kill(self.evaluator.pid, signal.SIGSTOP)
        self.worker = processes.start(*words("worker", "--server", address, "--processes", "1"))
        processes.said(self.server, "step-00000600")


def test_a_server_that_is_killed_when_all_steps_are_done_brings_the_run_to_its_end(
    processes: Processes, tmp_path: Path
) -> None:
    judged = Judged(processes, tmp_path)
    checkpoint = judged.run / "checkpoints" / "step-00000600.safetensors"
    before = checkpoint.read_bytes()

    os.kill(child_of(judged.server), signal.SIGKILL)
    processes.said(judged.server, "was killed by signal 9; another is started")
    os.kill(judged.evaluator.pid, signal.SIGCONT)

    for process in (judged.server, judged.evaluator, judged.worker):
        assert process.wait(PATIENCE) == 0, process.log.read_text()
    assert "continued from version 600" in judged.server.log.read_text()
    result = json.loads((judged.run / "result.json").read_text())
    assert (result["version"], result["failed"]) == (600, False)
    assert result == json.loads(judged.server.log.read_text().splitlines()[-1])
    assert checkpoint.read_bytes() == before
    refused_again(processes, tmp_path)
    # An end that was not noted is that of the run as it was.
    (judged.run / "result.json").unlink()
    refused_again(processes, tmp_path, "--learning-rate", "0.01")


def refused_again(processes: Processes, folder: Path, *more: str) -> None:
    """Whoever wants more of a run that is over is told what to say."""
    again = processes.start(*words("server", "--resume", "--run-dir", "run", "--listen", f"ipc://{folder}/s", *more))
    assert again.wait(PATIENCE) == 2, again.log.read_text()
    assert "give more --steps" in again.log.read_text()
