"""A checkpoint is written in steps, each of which may be the last: what is loaded is whole, the older one if need be.

Every call of the operating system that a write makes is a failpoint. It refuses with an error, as a full or broken disk
does; or the process ends there, as it does when it is killed.
"""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from stored import TINY, assert_same_bits, file_names, tiny

from ps_vae.train import checkpoint
from ps_vae.train.checkpoint import Damaged, newest, prune, write
from ps_vae.train.run_folder import RunFolder

CALLS = ("mkdir", "open", "write", "fsync", "close", "replace", "unlink")
# So that a write takes several calls, as it does where the disk fills up: the system takes what it has room for.
AT_ONCE = 1000

Refuse = Callable[[str], None]


class Failpoints:
    """Counts the calls; at the one numbered `at` it does what `refuse` does."""

    def __init__(self, at: int | None, refuse: Refuse) -> None:
        self.calls: list[str] = []
        self._at = at
        self._refuse = refuse
        self._true = {name: getattr(os, name) for name in CALLS}

    def __enter__(self) -> "Failpoints":
        for name in CALLS:
            setattr(os, name, self._watched(name))
        return self

    def __exit__(self, *error: object) -> None:
        for name in CALLS:
            setattr(os, name, self._true[name])

    def _watched(self, name: str) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            self.calls.append(name)
            if len(self.calls) - 1 == self._at:
                self._refuse(name)
            if name == "write":
                descriptor, content = arguments
                return self._true[name](descriptor, memoryview(content)[:AT_ONCE])  # type: ignore[arg-type]
            return self._true[name](*arguments, **keywords)

        return call


def write_second(folder: Path) -> None:
    """Checkpoint 2, after which only it is to stay."""
    write(folder, TINY, tiny(2))
    prune(folder, 2, keep=1)


def calls_of_a_write(folder: Path) -> list[str]:
    write(folder, TINY, tiny(1))
    with Failpoints(None, lambda name: None) as failpoints:
        write_second(folder)
    return failpoints.calls


def assert_whole(folder: Path, number: int, call: str, *, may_be_older: bool) -> None:
    """The newest checkpoint is 2, or 1 where it may be, bit for bit, and none had to be passed over."""
    damaged: list[Damaged] = []
    found = newest(folder, TINY, damaged)
    assert found is not None, (number, call, file_names(folder))
    assert found.version == 2 or may_be_older, (number, call)
    assert_same_bits(found, tiny(found.version))
    assert damaged == [], (number, call)


def test_the_calls_of_a_write_are_those_that_fail_below(tmp_path: Path) -> None:
    calls = calls_of_a_write(tmp_path)
    size = len((tmp_path / "step-00000002.safetensors").read_bytes())
    writes = ["write"] * -(-size // AT_ONCE)
    assert len(writes) >= 3
    assert calls == [
        *("open", *writes, "fsync", "close", "replace"),
        *("open", "fsync", "close"),
        "unlink",
    ]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_wherever_a_write_is_refused_a_whole_checkpoint_stays_and_nothing_else(tmp_path: Path, code: int) -> None:
    calls = calls_of_a_write(tmp_path / "dry")
    renamed = calls.index("replace")

    def refuse(name: str) -> None:
        raise OSError(code, os.strerror(code))

    for number, call in enumerate(calls):
        folder = tmp_path / str(number)
        write(folder, TINY, tiny(1))

        with Failpoints(number, refuse), pytest.raises(OSError, match=os.strerror(code)):
            write_second(folder)

        assert_whole(folder, number, call, may_be_older=number <= renamed)
        assert all(name.endswith(".safetensors") for name in file_names(folder)), (number, call)
        write_second(folder)
        assert file_names(folder) == ["step-00000002.safetensors"], (number, call)


CRASHES = """
import os, sys
from pathlib import Path
from stored import TINY, tiny
from test_checkpoint_failpoints import Failpoints, write_second

folder, calls = Path(sys.argv[1]), int(sys.argv[2])
for number in range(calls):
    child = os.fork()
    if child == 0:
        with Failpoints(number, lambda name: os._exit(9)):
            write_second(folder / str(number) / "checkpoints")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_wherever_a_writing_process_dies_a_whole_checkpoint_stays_and_the_next_start_clears_up(tmp_path: Path) -> None:
    calls = calls_of_a_write(tmp_path / "dry")
    renamed = calls.index("replace")
    for number in range(len(calls)):
        write(tmp_path / str(number) / "checkpoints", TINY, tiny(1))

    # A process without threads, which may fork.
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    died = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path), str(len(calls))],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert died.stdout.split() == ["9"] * len(calls)
    left_behind = 0
    for number, call in enumerate(calls):
        run = RunFolder(tmp_path / str(number))
        assert_whole(run.checkpoints, number, call, may_be_older=number <= renamed)
        left_behind += len(run.tidy())
        assert all(name.endswith(".safetensors") for name in file_names(run.checkpoints)), (number, call)
        assert_whole(run.checkpoints, number, call, may_be_older=number <= renamed)
    # From after the file is opened until it has its name.
    assert left_behind == renamed - calls.index("open")


def test_wherever_the_first_write_is_refused_there_is_a_whole_checkpoint_or_none(tmp_path: Path) -> None:
    with Failpoints(None, lambda name: None) as failpoints:
        write(tmp_path / "dry" / "checkpoints", TINY, tiny(1))
    assert failpoints.calls.count("mkdir") >= 2

    def refuse(name: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for number, call in enumerate(failpoints.calls):
        folder = tmp_path / str(number) / "checkpoints"
        # Of a folder that is there already it does not matter that it cannot be made.
        with Failpoints(number, refuse), contextlib.suppress(OSError):
            write(folder, TINY, tiny(1))
        damaged: list[Damaged] = []
        found = newest(folder, TINY, damaged)
        assert damaged == []
        assert (found is not None) == (number > failpoints.calls.index("replace")), (number, call)


def test_a_write_without_memory_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> bytes:
        raise MemoryError

    write(tmp_path, TINY, tiny(1))
    monkeypatch.setattr(checkpoint, "save", refuse)
    with pytest.raises(MemoryError):
        write_second(tmp_path)
    assert file_names(tmp_path) == ["step-00000001.safetensors"]
