"""The rows of the throughput benchmark, and what is made of their answers."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import throughput
from models import MODELS
from throughput import Row, chosen, drawn, measure, outcome, rows_of

ROWS = [
    Row("gemm, 1 core", ("floor",), 1),
    Row("ours, 1 core", ("ours",), 1, 128),
    Row("other, 1 core", ("other",), 1, 128),
]


@pytest.mark.parametrize("name", MODELS)
def test_every_row_has_a_program(name: str) -> None:
    rows = rows_of(name, MODELS[name], Path("job.npz"))

    # Found, not imported: the libraries of the peers need not be there.
    assert [row.name for row in rows if importlib.util.find_spec(row.command[0]) is None] == []
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_on_two_cores_has_twice_the_rows_and_each_microbatch_divides_it(name: str) -> None:
    model = MODELS[name]
    batches = {row.cores: set() for row in rows_of(name, model, Path("job.npz"))}
    for row in rows_of(name, model, Path("job.npz")):
        # TensorFlow's strategy applies what one worker has computed.
        if row.batch and not row.name.startswith("TensorFlow"):
            batches[row.cores].add(row.batch)

    assert batches == {1: {model.batch}, 2: {2 * model.batch}}
    assert [rows for rows in model.microbatches if 2 * model.batch % rows] == []


def test_rows_are_chosen_by_words_in_their_names() -> None:
    names = [row.name for row in chosen(ROWS, ["OURS", "gemm"])]

    assert names == ["gemm, 1 core", "ours, 1 core"]
    assert chosen(ROWS, []) == ROWS
    assert chosen(ROWS, ["no such row"]) == []


def test_rows_take_turns_and_only_the_first_round_trains_for_the_loss() -> None:
    asked = []

    measure(ROWS, 2, 0.5, lambda row, words: asked.append((row.name, words)) or {})

    usual = ("--seconds", "0.5")
    assert asked == [
        ("gemm, 1 core", usual),
        ("ours, 1 core", (*usual, "--least", "400")),
        ("other, 1 core", (*usual, "--least", "400")),
        ("gemm, 1 core", usual),
        ("ours, 1 core", usual),
        ("other, 1 core", usual),
    ]


def test_a_missing_library_is_a_row_that_says_so_and_runs_nothing() -> None:
    row = dataclasses.replace(ROWS[2], library="no_such_library")

    answers = measure([row], 2, 0.5, lambda row, words: pytest.fail("was run"))

    found = outcome([row], answers)
    assert found[row.name]["examples_per_second"] is None
    assert "not installed (pip install '.[peers]')" in drawn(found)


def test_a_program_that_fails_once_is_measured_by_its_other_rounds() -> None:
    answers = {
        "gemm, 1 core": [{"examples_per_second": 100.0}, {"examples_per_second": 50.0}, {"examples_per_second": 200.0}],
        "ours, 1 core": [paced(80.0, 118.0), paced(40.0), paced(170.0)],
        "other, 1 core": [paced(40.0, 118.5), {"failed": "it broke"}, paced(34.0)],
    }

    found = outcome(ROWS, answers)

    other = found["other, 1 core"]
    assert other["examples_per_second"] == {"median": 37.0, "least": 34.0, "most": 40.0}
    assert other["rounds"] == [40.0, None, 34.0]
    assert other["of_the_floor"] == pytest.approx((0.4 + 0.17) / 2)
    assert other["ours_is"] == pytest.approx((2.0 + 5.0) / 2)
    assert found["ours, 1 core"]["of_the_floor"] == 0.8
    assert (found["ours, 1 core"]["loss"], other["loss"]) == (118.0, 118.5)
    assert "Not in every round: other, 1 core: it broke" in drawn(found)


def test_without_the_floor_and_ours_there_are_figures_without_ratios() -> None:
    found = outcome(ROWS[2:], {"other, 1 core": [paced(40.0, 118.5)]})

    assert found["other, 1 core"]["of_the_floor"] is None
    assert found["other, 1 core"]["ours_is"] is None
    assert "40" in drawn(found)


def test_the_command_prints_one_json_object_with_machine_versions_and_rows() -> None:
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))[:2]]
    words = ["--json", "--only", "gemm, 1", "--rounds", "1", "--seconds", "0.01", "--cores", *cores]

    done = subprocess.run([sys.executable, throughput.__file__, *words], capture_output=True, text=True, check=True)

    report = json.loads(done.stdout)
    assert report["machine"]["blas"]
    assert report["versions"]["numpy"]
    (row,) = report["models"]["relu"].values()
    assert row["cores"] == 1
    assert row["rounds"][0] > 0


def paced(figure: float, loss: float | None = None) -> dict[str, float | None]:
    return {"examples_per_second": figure, "loss": loss}
