"""Runs one measuring program after the other: each a process of its own, on the cores it is given.

A program is a module of this folder. It prints one JSON object as its last line and ends; nothing of it is left behind.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["environment", "run"]

_HERE = Path(__file__).resolve().parent
# For a program to end by itself, with the processes that it has started.
_GRACE_SECONDS = 15.0
_LONGEST_REASON = 200


def environment(blas: str = "environment") -> dict[str, str]:
    """What programs are started with: this process's environment, one BLAS thread, and this folder to import from.

    blas  "environment": OpenBLAS takes the kernels that the environment names, if it does;
          "native": it chooses them by itself
    """
    variables = dict(os.environ) | {"OPENBLAS_NUM_THREADS": "1"}
    if blas == "native":
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            variables.pop(name, None)
    known = variables.get("PYTHONPATH")
    variables["PYTHONPATH"] = os.pathsep.join([str(_HERE), *([known] if known else [])])
    return variables


def run(
    command: Sequence[str], *, cores: Sequence[int], variables: Mapping[str, str], timeout: float
) -> dict[str, Any]:
    """What `python -m COMMAND` answers; {"failed": why} where it fails, says nothing, or takes more than `timeout` s.

    cores      the only ones that it and its children may use
    variables  its environment
    """
    with _on(cores):
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    try:
        out, said = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {timeout:g} s"}
    finally:
        _end(process)
    lines = [line for line in said.splitlines() if line.strip()]
    if process.returncode != 0:
        return {"failed": lines[-1][:_LONGEST_REASON] if lines else f"exit code {process.returncode}"}
    try:
        answer = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        return {"failed": f"printed no JSON object: {out[-_LONGEST_REASON:]!r}"}
    return answer if isinstance(answer, dict) else {"failed": f"printed {answer!r}, which is no JSON object"}


@contextlib.contextmanager
def _on(cores: Sequence[int]) -> Iterator[None]:
    """A process that is started in here may use these cores only, from its first instruction on."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _end(process: subprocess.Popen[str]) -> None:
    """Nothing of the program's session runs on: asked first where it does, so that it can end its own children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
