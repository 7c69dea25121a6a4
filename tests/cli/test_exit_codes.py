"""What goes wrong becomes an exit code and one line on standard error."""

import subprocess
import sys
from pathlib import Path

import pytest

from ps_vae.cli.main import run
from ps_vae.errors import CheckpointError, DataError, PsVaeError, Unreachable, UsageError
from ps_vae.train import evaluation


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch):
    """Makes `ps-vae evaluate` raise what is given."""

    def failing(error: BaseException) -> None:
        def evaluate(*arguments: object, **keywords: object) -> None:
            raise error

        monkeypatch.setattr(evaluation, "evaluate", evaluate)

    return failing


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("--latent 0: give more"), 2, "ps-vae: --latent 0: give more\n"),
        (DataError("x.npy: row 3 is NaN"), 1, "ps-vae: x.npy: row 3 is NaN\n"),
        (CheckpointError("damaged;\n  restore it"), 1, "ps-vae: damaged; restore it\n"),
        (Unreachable("no server answered"), 1, "ps-vae: no server answered\n"),
        (PsVaeError("stopped"), 1, "ps-vae: stopped\n"),
        (OSError(13, "Permission denied", "runs/a"), 1, "ps-vae: runs/a: Permission denied\n"),
        (OSError(28, "No space left", "runs/a"), 1, "ps-vae: runs/a: No space left; free some space\n"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(fail, capsys, error: Exception, code: int, line: str) -> None:
    fail(error)

    assert run(["evaluate", "runs/a"]) == code
    assert capsys.readouterr() == ("", line)


def test_a_fault_of_ours_is_one_line_that_says_how_to_see_more(fail, capsys) -> None:
    fail(KeyError("weights"))

    assert run(["evaluate", "runs/a"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "KeyError" in err
    assert "--debug" in err


def test_debug_shows_the_traceback_besides(fail, capsys) -> None:
    fail(DataError("row 3 is NaN"))

    assert run(["evaluate", "runs/a", "--debug"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("ps-vae: row 3 is NaN\n")


def test_debug_is_forgotten_by_the_next_call(fail, capsys) -> None:
    fail(DataError("row 3 is NaN"))
    run(["evaluate", "runs/a", "--debug"])
    capsys.readouterr()

    run(["evaluate", "runs/a"])

    assert capsys.readouterr().err == "ps-vae: row 3 is NaN\n"


def test_an_interrupt_shows_nothing_and_is_told_by_the_code(fail, capsys) -> None:
    fail(KeyboardInterrupt())

    assert run(["evaluate", "runs/a"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--layers", "3"], "--layers"),
        (["train", "--latent", "many"], "--latent"),
        (["train", "--workers", "0"], "--workers"),
        (["train", "--hidden", "400x200"], "400,200"),
        (["traim"], "traim"),
        (["evaluate"], "RUN"),
        (["server", "--join", "tcp://127.0.0.1:1", "--latent", "3"], "--join"),
        (["server", "--advertise", "tcp://127.0.0.1:1"], "--advertise"),
        (["sample", "runs/a", "--output", "a.jpg"], ".png or .csv or .npy"),
        (["encode", "runs/a", "--output", "a.png"], ".npy"),
        (["encode", "runs/a", "--output", "nowhere/a.npy"], "nowhere"),
    ],
)
def test_words_that_are_off_are_told_in_one_line_with_code_2(capsys, arguments: list[str], words: str) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


def test_a_folder_that_is_no_run_is_told_with_code_2(capsys, tmp_path: Path) -> None:
    assert run(["evaluate", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"ps-vae: {tmp_path} is not a run: it has no run.json; name a folder below runs/\n"
    )


def test_a_reader_that_goes_away_is_no_reason_to_complain() -> None:
    ours = subprocess.Popen(
        [sys.executable, "-m", "ps_vae", "train", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert ours.stdout is not None
    ours.stdout.close()

    assert ours.communicate(timeout=30)[1] == b""
