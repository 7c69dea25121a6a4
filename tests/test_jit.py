"""Kernels are compiled once, whoever asks for them at the same time, and run wherever nothing can be kept.

The kernels here are two small ones, in a module of their own, run by processes of their own.
"""

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ps_vae import jit

PATIENCE = 60

KERNELS = """
from ps_vae.jit import exact_kernel

@exact_kernel
def inner(x):
    return 2 * x + 1

@exact_kernel
def outer(values):
    for i in range(values.size):
        values[i] = inner(values[i])
"""
EXPECTED = [1.0, 3.0, 5.0]

# Waits for a line, or for the end, of its input; runs the kernels; prints what it had to say and to compile.
PROGRAM = """
import json, sys
import numpy as np
import ps_vae.jit
import kernels

said = []
ps_vae.jit.announce_compilation(said.append)
ps_vae.jit.start_numba()
print("ready", flush=True)
sys.stdin.readline()
values = np.arange(3.0)
kernels.outer(values)
stats = {name: getattr(kernels, name).stats for name in ("inner", "outer")}
print(json.dumps({
    "values": values.tolist(),
    "said": said,
    "compiled": {name: sum(stat.cache_misses.values()) for name, stat in stats.items()},
    "folder": stats["outer"].cache_path,
}))
"""

# Says so when it compiles, holding the lock, and stays there.
STUCK = """
import sys
import numpy as np
import ps_vae.jit
import kernels

def stay(text):
    print(kernels.outer.stats.cache_path, flush=True)
    sys.stdin.read()

ps_vae.jit.announce_compilation(stay)
kernels.outer(np.arange(3.0))
"""


class Programs:
    """Processes that import the kernels from `folder`; the cache is theirs alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "package"
        self.folder.mkdir()
        (self.folder / "kernels.py").write_text(KERNELS)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
        self.environment |= {"XDG_CACHE_HOME": str(folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
        package = str(Path(jit.__file__).parents[1])
        self.environment["PYTHONPATH"] = os.pathsep.join([str(self.folder), package])
        self._started: list[subprocess.Popen[str]] = []

    def start(self, program: str, before: str = "") -> subprocess.Popen[str]:
        """Start it; `before` is run before anything else."""
        command = [sys.executable, "-c", before + program]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self._started.append(process)
        return process

    def run(self, count: int = 1, before: str = "") -> list[dict[str, Any]]:
        """What `count` processes print that come to the kernels at the same moment."""
        processes = [self.start(PROGRAM, before) for _ in range(count)]
        for process in processes:
            line(process)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [answer(process) for process in processes]

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    read = process.stdout.readline().strip()
    assert read, process.communicate(timeout=PATIENCE)[1]
    return read


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    running = Programs(tmp_path)
    yield running
    running.close()


def test_processes_starting_together_compile_each_kernel_once(programs: Programs) -> None:
    answers = programs.run(3)

    assert [told["values"] for told in answers] == [EXPECTED] * 3
    compiled = {name: sum(told["compiled"][name] for told in answers) for name in ("inner", "outer")}
    assert compiled == {"inner": 1, "outer": 1}


def test_it_is_said_once_that_kernels_are_compiled_and_not_when_they_are_there(programs: Programs) -> None:
    (cold,) = programs.run()
    (warm,) = programs.run()

    assert len(cold["said"]) == 1
    assert cold["said"][0].startswith(jit.COMPILING)
    assert warm["said"] == []
    assert warm["compiled"] == {"inner": 0, "outer": 0}


def test_a_killed_compiler_leaves_no_lock(programs: Programs) -> None:
    stuck = programs.start(STUCK)
    folder = Path(line(stuck))
    lock = folder / "kernels.outer.lock"
    held = is_locked(lock)
    waiting = programs.start(PROGRAM)
    line(waiting)

    stuck.kill()
    stuck.wait()
    told = answer(waiting)

    assert held
    assert not is_locked(lock)
    assert told["values"] == EXPECTED
    assert told["compiled"] == {"inner": 1, "outer": 1}


def test_nobody_waits_for_ever_for_a_compiler_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels.py").write_text(KERNELS)
    spec = importlib.util.spec_from_file_location("kernels", tmp_path / "kernels.py")
    assert spec is not None
    assert spec.loader is not None
    kernels = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kernels", kernels)
    spec.loader.exec_module(kernels)
    monkeypatch.setattr(jit, "_PATIENCE_SECONDS", 0.01)
    values = np.arange(3.0)

    with (Path(kernels.outer.stats.cache_path) / "kernels.outer.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        kernels.outer(values)

    assert values.tolist() == EXPECTED


def test_a_package_that_cannot_be_written_to_has_its_kernels_in_the_users_cache(
    programs: Programs, tmp_path: Path
) -> None:
    # Where a file has this name there can be no folder, for root neither.
    (programs.folder / "__pycache__").touch()

    (cold,) = programs.run()
    (warm,) = programs.run()

    assert Path(cold["folder"]).is_relative_to(tmp_path / "home")
    assert warm["compiled"] == {"inner": 0, "outer": 0}


def test_numbas_own_word_on_the_cache_is_obeyed(programs: Programs, tmp_path: Path) -> None:
    programs.environment["NUMBA_CACHE_DIR"] = str(tmp_path / "chosen")

    (told,) = programs.run()

    assert Path(told["folder"]).is_relative_to(tmp_path / "chosen")
    assert not (programs.folder / "__pycache__").exists()


def test_without_any_folder_for_a_cache_kernels_work_and_it_is_said_once(programs: Programs, tmp_path: Path) -> None:
    (programs.folder / "__pycache__").touch()
    (tmp_path / "home").touch()

    (told,) = programs.run()

    assert told["folder"] is None
    assert told["values"] == EXPECTED
    (said,) = told["said"]
    assert said.startswith(jit.COMPILING)
    assert "NUMBA_CACHE_DIR" in said


def test_on_a_full_disk_kernels_work_and_it_is_said_once(programs: Programs) -> None:
    # No file may be longer than 100 bytes: the cache's index is.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"

    (told,) = programs.run(before=limit)

    assert told["values"] == EXPECTED
    compiling, unkept = told["said"]
    assert compiling.startswith(jit.COMPILING)
    assert "cannot be kept" in unkept
    assert told["compiled"] == {"inner": 1, "outer": 1}
