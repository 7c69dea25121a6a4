"""The commands about communication: their words, and one run of each."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import capacity
import communication
import pytest
from exchange.shaping import bits_per_second, missing


@pytest.mark.parametrize(("rate", "bits"), [("1gbit", 10**9), ("100mbit", 10**8), ("64kbit", 64_000)])
def test_rates_are_read_as_tc_writes_them(rate: str, bits: int) -> None:
    assert bits_per_second(rate) == bits


@pytest.mark.parametrize("rate", ["", "fast", "0mbit", "10", "10 mbit", "1gbps", "-1mbit"])
def test_other_words_are_no_rate(rate: str) -> None:
    with pytest.raises(ValueError, match="is not a rate; write 100mbit or 1gbit"):
        bits_per_second(rate)


def test_without_root_slow_links_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["communication.py", "--bandwidth", "1gbit"])

    assert communication.main() == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == ["--bandwidth 1gbit: network namespaces need root: run it with sudo"]
    assert said.out == ""


def test_without_iproute2_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda tool: None)

    assert missing() == "ip and tc not found: install iproute2"


def test_the_command_prints_one_json_object_and_draws_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "communication.png"

    # Runs of several workers are another file's.
    whole = run(communication.__file__, "--sizes", "1000", "--seconds", "0", "--workers", "--out", str(picture))

    systems = whole["sizes"]["1008"]
    assert systems["pyzmq"]["of_pyzmq"] == 1.0
    assert all(systems[name]["seconds"]["median"] > 0 for name in ("memory copy", "ours, shared memory", "ours, tcp"))
    assert whole["grid"] == []
    assert whole["machine"]["cores"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_capacity_of_a_server_is_told_with_how_many_real_workers_it_feeds() -> None:
    words = ["--workers", "3", "--size", "1000", "--seconds", "0.3", "--step-ms", "5", "--transport", "auto"]

    (row,) = run(capacity.__file__, *words)["rows"]

    assert row["workers"] == 3
    assert row["exchanges"] > 0
    assert row["feeds"] == pytest.approx(5e-3 / row["cpu"])


def run(path: str | None, *words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(path), "--json", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole: dict[str, Any] = json.loads(done.stdout)
    return whole
