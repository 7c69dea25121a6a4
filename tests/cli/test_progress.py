"""What a run's progress looks like while it lasts."""

import io
import re
import sys
from typing import Any

import pytest

from ps_vae.cli import progress

STATE: dict[str, Any] = {
    "version": 250,
    "steps": 1000,
    "phase": "training",
    "steps_per_second": 0.2,
    "bytes_pushed": 12_000_000,
    "bytes_pulled": 1_300_000_000,
    "worker_count": 3,
    "elbo": -110.5,
    "validation": {"version": 200, "elbo": -112.25, "reconstruction": -90.0, "kl": 22.25},
    "examples_per_second": 12_345.6,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_steps_quality_pace_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    with progress.training() as show:
        show(STATE)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    last = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-3:]
    assert re.fullmatch(r"step 250 of 1,000 .* 25%  1:02:30 left", last[0])
    assert last[1:] == [
        "ELBO -110.500, validation -112.250 at step 200",
        "12,346 examples/s, pushed 12.0 MB, pulled 1,300 MB, 3 workers",
    ]


def test_a_count_on_a_terminal_shows_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    with progress.counting("rows") as show:
        show(30, 40)

    assert "30/40" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())


def test_without_a_terminal_lines_are_seconds_apart(capsys) -> None:
    with progress.training() as show:
        show(STATE)
        show(STATE)

    assert capsys.readouterr().err.count("\n") == 1


def test_nothing_is_said_before_there_is_a_pace(capsys) -> None:
    with progress.training() as show:
        show(STATE | {"version": 0, "examples_per_second": 0.0})

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"steps_per_second": 750.0}, "0:01 left"),
        ({"steps_per_second": 10.0}, "1:15 left"),
        ({"steps_per_second": 0.0}, ""),
        ({"phase": "stopping"}, "stopping"),
        ({"phase": "starting", "steps_per_second": 0.0}, "starting"),
    ],
)
def test_time_left_is_told_where_it_can_be(state: dict[str, Any], expected: str) -> None:
    assert progress.left(STATE | state) == expected


def test_without_rows_to_validate_on_only_training_is_told() -> None:
    assert progress.quality(STATE | {"validation": {"version": 200}}) == ["ELBO -110.500"]
