"""Programs that are measured: what they answer, where they run, and that nothing of them is left."""

import os
import select
import sys
from pathlib import Path

import pytest
from programs import environment, run

CORE = min(os.sched_getaffinity(0))


def test_the_answer_is_the_last_line_of_a_program(tmp_path: Path) -> None:
    assert ask(tmp_path, "print('loading'); print('{\"examples_per_second\": 5.0}')") == {"examples_per_second": 5.0}


def test_a_program_and_its_children_run_on_the_given_cores_only(tmp_path: Path) -> None:
    program = "import os, subprocess, sys; subprocess.run([sys.executable, '-c', "
    program += "'import json, os; print(json.dumps({\"cores\": sorted(os.sched_getaffinity(0))}))'])"
    before = os.sched_getaffinity(0)

    assert ask(tmp_path, program) == {"cores": [CORE]}
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise RuntimeError('no such thing')", "RuntimeError: no such thing"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("print('done')", "printed no JSON object: 'done\\n'"),
        ("pass", "printed no JSON object: ''"),
        ("print('[1]')", "printed [1], which is no JSON object"),
    ],
)
def test_a_program_that_fails_is_an_answer_that_says_why(tmp_path: Path, program: str, why: str) -> None:
    assert ask(tmp_path, program) == {"failed": why}


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    nobody_writes = "import os; os.read(os.pipe()[0], 1)"

    assert ask(tmp_path, nobody_writes, timeout=0.2) == {"failed": "not done after 0.2 s"}


def test_a_program_that_has_answered_leaves_no_process_behind(tmp_path: Path) -> None:
    # The child holds the pipe open as long as it lives, which would be for ever: it does not listen to SIGTERM.
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    ear = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    child = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(1, b'up'); "
    child += "os.read(os.pipe()[0], 1)"
    program = f"""
import subprocess, sys
null = subprocess.DEVNULL
with open({str(alive)!r}, "wb") as out:
    child = subprocess.Popen([sys.executable, "-c", {child!r}], stdin=null, stdout=out, stderr=null)
print('{{"child": ' + str(child.pid) + '}}')
"""

    answer = ask(tmp_path, program)

    assert answer.keys() == {"child"}
    end = select.poll()
    end.register(ear, select.POLLHUP)
    assert end.poll(60_000), "the child runs on"
    os.close(ear)


def test_native_blas_is_told_nothing_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")

    assert environment()["OPENBLAS_CORETYPE"] == "Haswell"
    assert "OPENBLAS_CORETYPE" not in environment("native")
    assert environment("native")["OPENBLAS_NUM_THREADS"] == "1"


def ask(folder: Path, program: str, timeout: float = 60.0) -> dict[str, object]:
    """What the source of a program answers."""
    (folder / "measured.py").write_text(program)
    variables = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PATH": sys.exec_prefix}
    return run(("measured",), cores=(CORE,), variables=variables, timeout=timeout)
