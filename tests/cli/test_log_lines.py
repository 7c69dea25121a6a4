"""What programs say: text for people, or one JSON object a line that holds what the text was made of."""

import datetime
import json
import os
import subprocess
import sys

import pytest

from ps_vae.cli.main import run
from ps_vae.cli.terminal import say, speaker
from ps_vae.errors import DataError, UsageError
from ps_vae.lines import WARNING, Line
from ps_vae.ps.outbox import Member, MilestoneReached, Refused, RunEnded, StepApplied, Told
from ps_vae.train import server as train_server
from ps_vae.train.event_lines import line_of

LATE = Line("member-late", "{name} late: {seconds:.1f} s", level=WARNING, name="host:7", seconds=2.25)


def test_a_line_is_the_text_of_its_fields() -> None:
    assert LATE == "host:7 late: 2.2 s"
    assert (LATE.event, LATE.level, LATE.fields) == ("member-late", "warning", {"name": "host:7", "seconds": 2.25})


def test_braces_in_what_peers_say_are_text() -> None:
    assert Line("refused", "refused: {why}", why="{0.__class__} {") == "refused: {0.__class__} {"
    assert Line.of("{0}") == "{0}"


def test_json_lines_say_when_what_and_with_which_values(capsys) -> None:
    before = datetime.datetime.now(datetime.UTC)
    speaker("json")(LATE)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    told = json.loads(err)
    when = told.pop("time")
    assert when.endswith("Z")
    assert abs(datetime.datetime.fromisoformat(when) - before) < datetime.timedelta(seconds=60)
    assert told == {
        "level": "warning",
        "event": "member-late",
        "process": os.getpid(),
        "message": "host:7 late: 2.2 s",
        "name": "host:7",
        "seconds": 2.25,
    }


def test_plain_text_is_a_message_and_what_is_no_number_is_null(capsys) -> None:
    speaker("json")("hello")
    speaker("json")(Line("progress", "at {elbo}", elbo=float("nan")))
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["level"], first["message"]) == ("message", "info", "hello")
    assert second["elbo"] is None


def test_fields_do_not_hide_what_every_line_has(capsys) -> None:
    speaker("json")(Line("progress", "{message}", message="mine", time="never", process="another"))
    told = json.loads(capsys.readouterr().err)
    assert (told["message"], told["process"]) == ("mine", os.getpid())
    assert told["time"] != "never"


HOSTILE = "host\nps-vae: all is well\x1b[2J\r\x9b"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_name_cannot_make_a_line_of_its_own_or_move_the_cursor(capsys, log_format: str) -> None:
    speaker(log_format)(Line("member-joined", "{name} joined", name=HOSTILE))
    err = capsys.readouterr().err
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    if log_format == "json":
        assert json.loads(err)["name"] == HOSTILE


def test_text_is_said_as_it_is(capsys) -> None:
    say("bits may differ: ELBO ≥ -106.7, naïve, 手書き …")
    assert capsys.readouterr().err == "bits may differ: ELBO ≥ -106.7, naïve, 手書き …\n"


def test_a_log_on_a_full_disk_stops_nobody() -> None:
    """/dev/full refuses every byte, as a disk does that is full."""
    program = (
        "import sys; from ps_vae.cli.terminal import speaker\n"
        "for _ in range(1000): speaker('text')('x' * 100); speaker('json')('x' * 100)\n"
        "print('went on')"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"went on\n")


@pytest.mark.parametrize(
    ("event", "text", "level"),
    [
        (Member("host:7", "joined", "worker"), "host:7 joined: worker", "info"),
        (Member("host:7", "left"), "host:7 left", "info"),
        (Member("host:7", "lost", "its connection is closed"), "host:7 lost: its connection is closed", "warning"),
        (Refused("ab", "stale", "too old"), "refused a message of ab: stale: too old", "warning"),
        (Told(1200, (("elbo", -1.5), ("kl", 2.0))), "version 1,200: validation elbo -1.500, kl 2.000", "info"),
        (RunEnded(False, "done"), "the run ends: done", "info"),
        (RunEnded(True, "a shard is gone"), "the run ends: a shard is gone", "error"),
    ],
)
def test_events_are_told_with_their_level(event: object, text: str, level: str) -> None:
    line = line_of(event)  # type: ignore[arg-type]
    assert line is not None
    assert (line, line.level) == (text, level)


@pytest.mark.parametrize("event", [StepApplied(0, 1, 0, ()), MilestoneReached(3)])
def test_events_that_are_no_news_are_not_told(event: object) -> None:
    assert line_of(event) is None  # type: ignore[arg-type]


def test_an_error_is_a_json_line_where_lines_are_json(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise DataError("x.npy: row 3 is NaN")

    monkeypatch.setattr(train_server, "serve", refuse)
    assert run(["server", "--log-format", "json"]) == 1
    told = json.loads(capsys.readouterr().err)
    assert (told["event"], told["level"], told["error"]) == ("failed", "error", "DataError")
    assert told["message"] == "x.npy: row 3 is NaN"
    assert told["traceback"] is None

    assert run(["server", "--debug", "--log-format", "json"]) == 1
    assert "in refuse" in json.loads(capsys.readouterr().err)["traceback"]


def test_words_that_are_off_are_told_in_the_format_that_was_asked_for(capsys) -> None:
    assert run(["worker", "--processes", "none", "--log-format", "json"]) == 2
    assert "--processes" in json.loads(capsys.readouterr().err)["message"]


@pytest.mark.parametrize("command", ["server", "worker"])
def test_a_format_that_there_is_not_is_told_with_those_that_there_are(capsys, command: str) -> None:
    assert run([command, "--log-format", "xml"]) == 2
    assert capsys.readouterr().err == "ps-vae: --log-format xml: choose one of text, json\n"
    with pytest.raises(UsageError):
        speaker("xml")
