"""What frontier.py measures and in which order, what it keeps, and what it makes of it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import frontier
import pytest
from frontier import due, measure
from pareto.job import Job, dense_bytes, exchanges, steps_together
from pareto.methods import METHODS, Method, chosen
from pareto.outcome import RATES, answers, rows
from pareto.results import Results, quality_key, speed_key
from pareto.tables import told, whole_table

TWO = {"dense": METHODS["dense"], "local-8": METHODS["local-8"]}
THREE = {**TWO, "ddp": METHODS["ddp"]}
JOBS = [Job("digits", 2, seed=seed, epochs=20.0) for seed in (0, 1)]


@pytest.mark.parametrize(("name", "steps"), [("dense", 1), ("int8", 1), ("local-32-onebit", 32), ("ddp-fp16", 1)])
def test_the_local_steps_of_a_method_are_those_of_its_options(name: str, steps: int) -> None:
    assert METHODS[name].local_steps == steps


def test_methods_are_chosen_by_name_in_the_order_of_the_table() -> None:
    assert list(chosen(["ddp", "int8"])) == ["int8", "ddp"]
    assert chosen([]) == METHODS
    with pytest.raises(ValueError, match="there is no method int9; there are dense, delay-1"):
        chosen(["int9", "dense"])


def test_looks_are_as_many_exchanges_apart_as_a_slow_link_carries_in_part_of_a_second() -> None:
    job = Job("digits", 2)

    # 256 rows at 50,000 a second are 5.12 ms; dense at 100 Mbit/s, four tensors of 2.6 MB, they are 0.84 s.
    assert steps_together(job, 1, dense_bytes(128), None) == 58
    assert steps_together(job, 1, dense_bytes(128), 100e6) == 1
    assert steps_together(job, 32, dense_bytes(128, 32), None) == 1
    assert dense_bytes(128) == pytest.approx(2 * 4 * 652_824 / 128)
    assert dense_bytes(128, 32) == dense_bytes(128) / 32


def test_no_run_sees_more_rows_than_its_epochs_hold() -> None:
    job = Job("digits", 2, epochs=20.0)

    # 1,180,000 rows in steps of 256.
    assert exchanges(job, 1, 59_000) == 4609
    assert exchanges(job, 128, 59_000) == 36
    assert exchanges(job, 10_000, 59_000) == 1
    assert exchanges(Job("digits", 2), 1, 59_000) is None


def test_quality_comes_first_and_then_the_methods_take_turns() -> None:
    order = [(key["kind"], name, job.workers, job.seed, rate) for key, name, _, job, rate in due(words(), TWO)]

    assert order == [
        ("quality", "dense", 2, 0, "unshaped"),
        ("quality", "local-8", 2, 0, "unshaped"),
        ("quality", "dense", 2, 1, "unshaped"),
        ("quality", "local-8", 2, 1, "unshaped"),
        *[("speed", name, 2, 0, rate) for rate in ("unshaped", "100mbit") for name in TWO],
        *[("speed", name, 2, 0, rate) for rate in ("unshaped", "100mbit") for name in TWO],
    ]
    assert {item[0]["kind"] for item in due(words(only="speed"), TWO)} == {"speed"}
    assert {item[0]["kind"] for item in due(words(only="quality"), TWO)} == {"quality"}
    keys = [json.dumps(item[0]) for item in due(words(), TWO)]
    assert len(set(keys)) == len(keys)


def test_a_second_call_measures_only_what_is_missing_or_has_failed(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def run(method: Method, job: Job, rate: str) -> dict[str, Any]:
        asked.append((" ".join(method.words), job.seed))
        if method.words and len(asked) < 5:
            raise RuntimeError("no such option")
        return trained(elbo=-100.0)

    def call(**more: Any) -> None:
        measure(due(words(only="quality"), TWO), Results(tmp_path / "kept" / "r.jsonl"), run, say=print, **more)

    call(anew=False)
    call(anew=False)
    assert asked[4:] == [("--local-steps 8", 0), ("--local-steps 8", 1)]
    call(anew=False)
    assert len(asked) == 6
    call(anew=True)
    assert len(asked) == 10


def test_a_run_that_fails_is_a_row_that_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    def run(method: Method, job: Job, rate: str) -> dict[str, Any]:
        if method.words:
            raise RuntimeError("server: No such option: --local-steps")
        return trained(elbo=-100.0)

    results = Results(None)
    measure(due(words(only="quality"), TWO), results, run, anew=False, say=print)

    drawn = whole_table(rows(results, TWO, JOBS, (), 0), ())
    assert "No figure for local-8: server: No such option: --local-steps" in drawn
    assert "local-8, seed 0, 20 epochs: failed: server: No such option: --local-steps" in capsys.readouterr().out


def test_of_one_measurement_the_newest_line_counts_and_other_options_make_another(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    key = quality_key("a", Method(("--local-steps", "8")), JOBS[0])
    for value in (1, 2):
        Results(file).add(key, {"elbo": value})

    found = Results(file)

    assert found.answer(key) == {"elbo": 2}
    assert found.answer(quality_key("a", Method(("--local-steps", "9")), JOBS[0])) is None
    assert found.answer(quality_key("a", Method(("--local-steps", "8")), JOBS[1])) is None


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    first, second = (quality_key("a", Method(), job) for job in JOBS)
    Results(file).add(first, {"elbo": 1})
    with file.open("a") as out:
        out.write('{"key": {"kind": "qua')

    Results(file).add(second, {"elbo": 2})

    found = Results(file)
    assert (found.answer(first), found.answer(second)) == ({"elbo": 1}, {"elbo": 2})


def test_another_file_is_not_taken_for_results(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("bread\nbutter\n")

    with pytest.raises(ValueError, match=r"notes\.txt, line 1: not a result; give another --results"):
        Results(file)
    assert file.read_text() == "bread\nbutter\n"


def test_differences_are_taken_between_runs_of_the_same_seed() -> None:
    found = rows(measured({"dense": [-100.0, -104.0], "local-8": [-100.2, -103.9]}), TWO, JOBS, (), 0)

    row = found["local-8"]
    assert row["to_dense"] == pytest.approx((-0.2 + 0.1) / 2)
    assert row["worst"] == pytest.approx(-0.2)
    assert (row["least"], row["mean"], row["most"]) == (-103.9, pytest.approx(-102.05), -100.2)


def test_a_seed_that_dense_lacks_does_not_shift_the_difference() -> None:
    found = rows(measured({"dense": [-100.0], "local-8": [-100.2, -108.0]}), TWO, JOBS, (), 0)

    assert found["local-8"]["to_dense"] == pytest.approx(-0.2)


def test_bytes_are_those_of_an_example_and_told_against_dense() -> None:
    results = measured({"dense": [-100.0], "local-8": [-100.0]}, sizes={"dense": 4000.0, "local-8": 500.0})

    found = rows(results, TWO, JOBS, (), 0)

    assert (found["dense"]["bytes_per_example"], found["local-8"]["bytes_per_example"]) == (4000.0, 500.0)
    assert found["local-8"]["of_dense"] == 8.0


def test_the_answer_is_the_setting_with_the_fewest_bytes_that_loses_no_more() -> None:
    said = answers(
        {
            "dense": row(of_dense=1.0, to_dense=0.0),
            "near": row(of_dense=20.0, to_dense=-0.09),
            "better": row(of_dense=8.0, to_dense=+2.0),
            "far": row(of_dense=120.0, to_dense=-0.29),
            "lost": row(of_dense=900.0, to_dense=-0.31),
            "peer": row(of_dense=500.0, to_dense=0.0, peer=True),
        }
    )

    assert {limit: best["method"] for limit, best in said["within"].items()} == {"0.3": "far", "0.1": "near"}
    assert said["slow"] is None


def test_the_slow_link_is_told_against_unshaped_figures_and_ddp_round_by_round() -> None:
    found = {
        "dense": row(to_dense=0.0, unshaped=[100.0, 50.0], slow=[10.0, 10.0]),
        "near": row(to_dense=-0.2, unshaped=[80.0, 50.0], slow=[80.0, 40.0]),
        "lost": row(to_dense=-0.4, unshaped=[90.0, 90.0], slow=[90.0, 90.0]),
        "ddp": row(to_dense=0.0, unshaped=[60.0, 60.0], slow=[4.0, None], peer=True),
    }

    slow = answers(found)["slow"]

    assert slow["method"] == "near"
    assert slow["examples_per_second"] == 60.0
    assert slow["of_own_unshaped"] == pytest.approx((1.0 + 0.8) / 2)
    assert slow["of_dense_unshaped"] == pytest.approx(0.8)
    assert slow["of_ddp"] == pytest.approx(20.0)
    said = "near (-0.20 nat) makes 60 examples/s, 0.90 times its own unshaped figure, 0.80 times that of dense, 20.00"
    assert said in told(answers(found), 2)


def test_nothing_within_a_limit_is_said_so() -> None:
    assert told(answers({"dense": row(to_dense=None)}), 4) == (
        "4 workers: nothing within 0.3 nat of dense was measured.\n"
        "4 workers: nothing within 0.1 nat of dense was measured."
    )


def test_a_table_has_the_paces_of_each_rate_and_tells_who_has_seen_more_examples() -> None:
    results = measured({"dense": [-100.0, -101.0], "local-8": [-100.5]}, examples={"dense": 1000.0, "local-8": 1030.0})
    for number, pace in enumerate((7000.0, 9000.0, 8000.0)):
        results.add(speed_key("ddp", THREE["ddp"], JOBS[0], "1gbit", number), {"examples_per_second": pace})

    drawn = whole_table(rows(results, THREE, JOBS, RATES, 3), RATES)

    lines = {line.split("|")[1].strip(): line for line in drawn.splitlines() if line.startswith("|")}
    assert "1 Gbit/s" in lines["method"]
    assert "\N{MINUS SIGN}101.00 to \N{MINUS SIGN}100.00" in lines["dense"]
    assert "-0.50" in lines["local-8"]
    assert "8,000" in lines["ddp"]
    assert "Not as many examples as dense, but so many times: local-8 1.030" in drawn


def test_without_root_links_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["frontier.py"])

    assert frontier.main() == 1
    assert capsys.readouterr().err.splitlines() == ["network namespaces need root: run it with sudo"]


def test_data_that_are_not_there_are_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("frontier.missing", lambda: None)
    monkeypatch.setattr("frontier.measure", lambda *given, **named: pytest.fail("was run"))
    monkeypatch.setattr(sys, "argv", ["frontier.py", "--data", str(tmp_path / "nowhere")])

    assert frontier.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere" in line


def test_the_command_prints_one_json_object_of_what_its_file_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, picture = tmp_path / "r.jsonl", tmp_path / "frontier.png"
    measured({"dense": [-100.0, -104.0], "local-8": [-100.2, -104.2]}, file=file)
    monkeypatch.setattr("frontier.missing", lambda: None)
    monkeypatch.setattr("frontier.run_ours", lambda *given: pytest.fail("was run"))
    given = ["--data", "digits", "--workers", "2", "--seeds", "0", "1", "--only", "quality", "--json"]
    monkeypatch.setattr(
        sys,
        "argv",
        ["frontier.py", *given, "--methods", "dense", "local-8", "--results", str(file), "--out", str(picture)],
    )

    assert frontier.main() == 0

    whole = json.loads(capsys.readouterr().out)
    part = whole["workers"]["2"]
    assert part["methods"].keys() == {"dense", "local-8"}
    assert part["methods"]["local-8"]["to_dense"] == pytest.approx(-0.2)
    assert whole["machine"]["cores"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def words(**more: Any) -> argparse.Namespace:
    given = {"data": "digits", "workers": (2,), "seeds": (0, 1), "epochs": 20.0, "seconds": 1.0}
    rounds = {"rounds": 2, "rates": ("unshaped", "100mbit"), "only": None}
    return argparse.Namespace(**(given | rounds | more))


def trained(*, elbo: float, size: float = 1000.0, examples: float = 1000.0) -> dict[str, Any]:
    return {"elbo": elbo, "bytes": size * examples, "examples": examples, "examples_per_second": 1.0}


def measured(
    elbos: dict[str, Sequence[float]],
    *,
    sizes: dict[str, float] | None = None,
    examples: dict[str, float] | None = None,
    file: Path | None = None,
) -> Results:
    """Runs to the end: the ELBO of each seed, bytes an example, examples."""
    results = Results(file)
    for name, several in elbos.items():
        for job, elbo in zip(JOBS, several, strict=False):
            made = trained(elbo=elbo, size=(sizes or {}).get(name, 1.0), examples=(examples or {}).get(name, 1000.0))
            results.add(quality_key(name, METHODS[name], job), made)
    return results


def row(
    *,
    of_dense: float | None = 1.0,
    to_dense: float | None,
    peer: bool = False,
    unshaped: Sequence[float | None] = (),
    slow: Sequence[float | None] = (),
) -> dict[str, Any]:
    known = [pace for pace in slow if pace is not None]
    pace = {"100mbit": {"median": sum(known) / len(known)} if known else None}
    rounds = {"unshaped": list(unshaped), "100mbit": list(slow)}
    made = {"of_dense": of_dense, "to_dense": to_dense, "worst": to_dense, "peer": peer, "options": ""}
    return {**made, "pace": pace, "rounds": rounds}
