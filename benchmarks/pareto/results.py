"""What has been measured, in a file that grows by a line of JSON each time: an interrupted benchmark goes on from it.

    {"key": {...}, "answer": {...}}

The key says all that decides the answer: another one is another measurement. Of one key the newest line counts. An
answer {"failed": why} is none to go on from: it is asked for again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pareto.job import Job
from pareto.methods import Method

__all__ = ["Results", "quality_key", "speed_key"]

Key = dict[str, Any]
Answer = dict[str, Any]


def quality_key(name: str, method: Method, job: Job) -> Key:
    """Of a run to the end."""
    return {**_common("quality", name, method, job), "epochs": job.epochs, "seed": job.seed}


def speed_key(name: str, method: Method, job: Job, rate: str, number: int) -> Key:
    """Of a timed run, in one of the rounds."""
    return {**_common("speed", name, method, job), "rate": rate, "round": number}


class Results:
    """The file, read once and then written to.

    path  None: nothing is kept

    Raises ValueError where the file holds another thing than results.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._answers: dict[str, Answer] = {}
        if path is not None and path.exists():
            self._read(path)

    def answer(self, key: Mapping[str, Any]) -> Answer | None:
        """The newest one; None where there is none."""
        return self._answers.get(_name(key))

    def has(self, key: Mapping[str, Any]) -> bool:
        """Whether it has been measured, and did not fail."""
        return "failed" not in (self.answer(key) or {"failed": ""})

    def add(self, key: Mapping[str, Any], answer: Answer) -> None:
        """Keep an answer."""
        self._answers[_name(key)] = answer
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps({"key": key, "answer": answer}) + "\n")

    def _read(self, path: Path) -> None:
        text = path.read_text()
        for number, line in enumerate(text.splitlines(keepends=True), start=1):
            if not line.endswith("\n"):
                # Cut off when the benchmark was: what comes next begins on a line of its own.
                path.write_text(text[: len(text) - len(line)])
                break
            try:
                found = json.loads(line)
                self._answers[_name(found["key"])] = dict(found["answer"])
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{path}, line {number}: not a result; give another --results") from None


def _common(kind: str, name: str, method: Method, job: Job) -> Key:
    return {
        "kind": kind,
        "method": name,
        "words": list(method.words),
        "data": job.data,
        "workers": job.workers,
        "rows": job.rows,
    }


def _name(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
