"""The papers' figures: what is started, how time is counted, and one short run that is taken up again."""

import json
from pathlib import Path

import papers
import pytest


def test_seconds_are_those_of_the_lines_up_to_the_version_and_not_of_what_came_between() -> None:
    lines = [
        {"kind": "training", "version": 10, "examples_per_second": 100.0},
        {"kind": "validation", "version": 10},
        {"kind": "training", "version": 30, "examples_per_second": 50.0},
        {"kind": "training", "version": 40, "examples_per_second": 10.0},
    ]
    assert papers.training_seconds(lines, 5, 30) == 10 * 5 / 100 + 20 * 5 / 50
    assert papers.training_seconds(lines, 5, 40) == pytest.approx(2.5 + 5)


def test_steps_whose_pace_is_not_known_count_by_that_of_the_next_line() -> None:
    lines = [
        {"kind": "training", "version": 1, "examples_per_second": None},
        {"kind": "training", "version": 20, "examples_per_second": 100.0},
    ]
    assert papers.training_seconds(lines, 5, 20) == 20 * 5 / 100


def test_a_run_is_trained_taken_up_and_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(papers, "_CURVE", ["--limit", "20", "--samples", "3"])
    small = papers.Experiment("iwae:2", 1, 64, 1e-3, "constant", 84.78)
    monkeypatch.setitem(papers.EXPERIMENTS, "iwae", small)
    words = ["papers.py", "iwae", "--data", "digits", "--split", "auto", "--runs", str(tmp_path), "--curve"]
    words += ["--samples", "4", "--more=--checkpoint-every 20 --pull-codec fp16 --learning-rate 2e-3"]
    for epochs in ("1", "2"):
        monkeypatch.setattr("sys.argv", [*words, "--epochs", epochs])
        papers.main()
    table = [line for line in capfd.readouterr().out.splitlines() if line.startswith("| iwae:2")]
    # Versions 20 and 23 and all rows at 23; then these again, 40 and 45, and all rows at 45.
    assert len(table) == 3 + 6
    assert all("| bsp --learning-rate 0.002 --pull-codec fp16 |" in line for line in table)
    assert [line.endswith(" 84.78 |") for line in table].count(True) == 1 + 2
    (file,) = tmp_path.glob("*/papers.jsonl")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    keys = [(each["version"], tuple(each["more"])) for each in found]
    assert len(keys) == len(set(keys))
    assert all(each["nll"] > 0 and each["minutes"] > 0 for each in found)
