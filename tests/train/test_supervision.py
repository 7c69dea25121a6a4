"""Child processes: started again after a crash, left alone after an answer, and never left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import ps_vae
from ps_vae.train import supervisor
from ps_vae.train.processes import StopSignal, prepare_environment, random_id, spawn, stop_all
from ps_vae.train.supervisor import supervise

CRASH = "import os; os.kill(os.getpid(), 9)"
WAIT = "import signal; signal.pause()"


def exit_with(code: int) -> str:
    return f"raise SystemExit({code})"


def child(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[str]], list[subprocess.Popen[bytes]]]]:
    """play(codes): what is spawned runs these programs, in order; returns the list of what was spawned."""
    started: list[subprocess.Popen[bytes]] = []

    def prepare(codes: list[str]) -> list[subprocess.Popen[bytes]]:
        def spawn_next(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
            assert arguments == ["worker"]
            started.append(child(codes[len(started)]))
            return started[-1]

        monkeypatch.setattr(supervisor, "spawn", spawn_next)
        return started

    monkeypatch.setattr(supervisor, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE_SECONDS", 0.01)
    yield prepare
    stop_all(started, grace=0.0)


Play = Callable[[list[str]], list[subprocess.Popen[bytes]]]


def test_a_worker_that_was_killed_is_started_again_until_it_ends_by_itself(play: Play) -> None:
    started, told = play([CRASH, CRASH, exit_with(0)]), list[str]()
    assert supervise(["worker"], 1, say=told.append, should_stop=StopSignal()) == 0
    assert [process.returncode for process in started] == [-9, -9, 0]
    assert [line.split(";")[0] for line in told] == [f"worker {p.pid} was killed by signal 9" for p in started[:2]]
    # The pause doubles.
    assert [line.split()[-2:] for line in told] == [["0.01", "s"], ["0.02", "s"]]


def test_the_pause_grows_no_longer_than_its_bound(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE_SECONDS", 0.015)
    told: list[str] = []
    play([CRASH] * 3 + [exit_with(0)])
    supervise(["worker"], 1, say=told.append, should_stop=StopSignal())
    assert [line.split()[-2] for line in told] == ["0.01", "0.015", "0.015"]


def test_a_worker_that_lived_long_starts_with_a_clean_record(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_STABLE_SECONDS", -1.0)
    told: list[str] = []
    play([CRASH] * 3 + [exit_with(0)])
    supervise(["worker"], 1, say=told.append, should_stop=StopSignal())
    assert [line.split()[-2] for line in told] == ["0.01", "0.01", "0.01"]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_worker_that_ended_by_itself_is_not_started_again(play: Play, code: int) -> None:
    started, told = play([exit_with(code)]), list[str]()
    assert supervise(["worker"], 1, say=told.append, should_stop=StopSignal()) == code
    assert len(started) == 1
    assert told == []


def test_the_exit_code_is_the_highest_and_comes_when_all_have_ended(play: Play) -> None:
    started = play([exit_with(2), exit_with(0), CRASH, exit_with(1)])
    assert supervise(["worker"], 3, say=lambda text: None, should_stop=StopSignal()) == 2
    assert sorted(process.returncode for process in started) == [-9, 0, 1, 2]


def test_a_stop_ends_all_of_them_and_is_no_failure(play: Play) -> None:
    should_stop = StopSignal()

    def stop_after_the_crash(text: str) -> None:
        should_stop.count += 1

    started = play([WAIT, WAIT, CRASH])
    assert supervise(["worker"], 3, say=stop_after_the_crash, should_stop=should_stop) == 0
    assert [process.returncode for process in started] == [-signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL]


def test_workers_are_not_left_behind_where_a_further_one_cannot_be_started(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = play([WAIT])
    spawn_one: Callable[[Sequence[str]], subprocess.Popen[bytes]] = vars(supervisor)["spawn"]

    def refuse_the_second(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        if started:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return spawn_one(arguments)

    monkeypatch.setattr(supervisor, "spawn", refuse_the_second)
    with pytest.raises(BlockingIOError):
        supervise(["worker"], 2, say=lambda text: None, should_stop=StopSignal())
    assert [process.returncode for process in started] == [-signal.SIGTERM]


def test_a_child_that_ignores_the_first_signal_is_killed() -> None:
    stubborn = child("import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); signal.pause()")
    polite = child("import signal; print('ready', flush=True); signal.pause()")
    ended = child(exit_with(3))
    ended.wait(60)
    for process in (stubborn, polite):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    stop_all([stubborn, ended, polite], grace=0.2)
    assert (stubborn.returncode, ended.returncode, polite.returncode) == (-signal.SIGKILL, 3, -signal.SIGTERM)
    stop_all([stubborn, ended, polite])
    stop_all([])


@pytest.fixture
def listening() -> Iterator[StopSignal]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield StopSignal().listen()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_stop_signal_counts_both_signals(listening: StopSignal) -> None:
    assert not listening()
    assert listening.count == 0
    signal.raise_signal(signal.SIGTERM)
    assert listening()
    signal.raise_signal(signal.SIGINT)
    assert listening()
    assert listening.count == 2


def test_what_is_spawned_is_this_ps_vae_in_a_session_of_its_own_with_its_output_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    # A folder where no ps_vae can be imported from by chance.
    monkeypatch.chdir(tmp_path)
    version = spawn(["--version"], log=log)
    assert os.getsid(version.pid) == version.pid != os.getsid(0)
    assert version.wait(60) == 0
    assert log.read_text() == f"before\nps-vae {ps_vae.__version__}\n"
    assert spawn(["no-such-command"], log=log).wait(60) == 2
    assert "no-such-command" in log.read_text()


def test_a_child_that_is_told_to_stop_before_it_listens_stops_cleanly(tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = spawn(["worker", "--server", f"ipc://{tmp_path}/nobody", "--processes", "1"], log=log)
    worker.terminate()
    assert worker.wait(60) == 0, log.read_text()


def test_children_get_one_blas_thread_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, expected in ((None, "1"), ("3", "3")):
        monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", said or "")
        if said is None:
            monkeypatch.delenv("OPENBLAS_NUM_THREADS")
        prepare_environment()
        assert (os.environ["OPENBLAS_NUM_THREADS"], os.environ["OPENBLAS_CORETYPE"]) == (expected, "Haswell")


def test_ids_have_16_bytes_and_differ() -> None:
    ids = {random_id() for _ in range(100)}
    assert len(ids) == 100
    assert {len(one) for one in ids} == {16}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_workers_as_cores_have_a_core_each_and_others_go_where_they_like(
    play: Play, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    pinned: list[tuple[int, set[int]]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5})
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: pinned.append((process, cores)))
    started = play([exit_with(0)] * count)

    supervise(["worker"], count, say=lambda text: None, should_stop=StopSignal())

    assert pinned == (
        [(process.pid, {core}) for process, core in zip(started, (3, 5), strict=True)] if count == 2 else []
    )


def test_a_worker_that_was_started_again_has_its_core_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[tuple[int, set[int]]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5})
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: pinned.append((process, cores)))
    started = play([CRASH, exit_with(0)])

    supervise(["worker"], 1, say=lambda text: None, should_stop=StopSignal())

    assert pinned == [(process.pid, {5}) for process in started]
