"""One server to a run's folder, for as long as its process lives and no longer."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from small_run import small_config

from ps_vae.errors import UsageError
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.run_lock import LOCK, hold

HOLDER = """
import signal, sys
from pathlib import Path
from ps_vae.train.run_lock import hold
with hold(Path(sys.argv[1]), say=print):
    print("held", flush=True)
    signal.pause()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_server_is_refused_and_told_who_the_first_is(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(UsageError) as refused, hold(tmp_path, say=print):
        pass
    expected = (f"{tmp_path} is in use", f"process {holder.pid} on {os.uname().nodename}", "--run-dir")
    assert [part for part in expected if part not in str(refused.value)] == []


def test_a_holder_that_is_killed_lets_go(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with hold(tmp_path, say=print):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_the_file_goes_with_the_holder_and_the_folder_is_free_again(tmp_path: Path) -> None:
    for _ in range(2):
        with hold(tmp_path, say=print), pytest.raises(UsageError, match="in use"), hold(tmp_path, say=print):
            pass
        assert list(tmp_path.iterdir()) == []


def test_who_waited_at_a_file_that_its_holder_has_removed_locks_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it the holder ends: the lock of what has no name would be worth nothing."""
    flock, first = fcntl.flock, ExitStack()
    first.enter_context(hold(tmp_path, say=print))

    def flock_after_the_end(descriptor: int, operation: int) -> None:
        first.close()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_the_end)
    with hold(tmp_path, say=print):
        monkeypatch.setattr(fcntl, "flock", flock)
        with pytest.raises(UsageError, match="in use"), hold(tmp_path, say=print):
            pass


def test_where_the_file_system_knows_no_locks_the_run_goes_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said: list[str] = []
    with hold(tmp_path, say=said.append):
        pass
    assert len(said) == 1
    assert said[0].startswith(f"WARNING: {tmp_path / LOCK} cannot be locked (No locks available)")


def test_a_folder_with_nothing_but_a_lock_may_become_a_run(tmp_path: Path) -> None:
    with hold(tmp_path, say=print):
        RunFolder(tmp_path).create(small_config())
    assert RunFolder(tmp_path).config() == small_config()


def test_a_disk_that_refuses_the_lock_is_told_with_the_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(OSError, match="No space left") as refused, hold(tmp_path, say=print):
        pass
    assert refused.value.filename == str(tmp_path / LOCK)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_who_holds_the_folder_is_not_the_locks(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="elsewhere") as raised, hold(tmp_path, say=print):
        raise OSError(errno.EIO, "elsewhere")
    assert raised.value.filename is None
