"""What benchmarks say beside their figures."""

import os

import numpy as np
import pytest
from report import machine, ratio, summary, table, versions


def test_a_table_is_markdown_whose_columns_line_up() -> None:
    rows = [
        {"system": "ours", "examples/s": 12345.6, "ratio": 1.0, "why": None},
        {"system": "a much longer name", "examples/s": 7, "why": "slow"},
    ]

    drawn = table(rows, {"system": "", "examples/s": ",.0f", "ratio": ".2f", "why": ""}).splitlines()

    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in drawn]
    assert cells[0] == ["system", "examples/s", "ratio", "why"]
    assert cells[2] == ["ours", "12,346", "1.00", "-"]
    assert cells[3] == ["a much longer name", "7", "-", "slow"]
    bars = [[at for at, letter in enumerate(line) if letter == "|"] for line in drawn]
    assert bars == [bars[0]] * len(drawn), f"the bars stand below one another:\n{drawn}"
    assert [cell[-1] for cell in cells[1]] == ["-", ":", ":", "-"], "numbers on the right, text on the left"


def test_a_table_without_rows_has_its_head() -> None:
    assert table([], {"system": "", "ms": ".1f"}).splitlines()[0] == "| system | ms |"


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_summary_is_the_median_least_and_most_of_the_rounds_with_a_figure(count: int) -> None:
    figures = np.random.default_rng(count).uniform(1, 100, count)

    found = summary([None, *figures.tolist(), None])

    assert found == {"median": np.median(figures), "least": figures.min(), "most": figures.max()}


def test_there_is_no_summary_and_no_ratio_of_nothing() -> None:
    assert summary([None, None]) is None
    assert ratio([None, 2.0], [3.0, None]) is None


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was slow at first: the ratio of the medians would be 1.2.
    assert ratio([20.0, 100.0, 30.0, None], [10.0, 50.0, 25.0, 5.0]) == 2.0


def test_a_ratio_of_unequal_numbers_of_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0], [1.0, 2.0])


def test_versions_tell_what_is_installed_and_what_is_not() -> None:
    assert versions(("numpy", "no-such-distribution")) == {"numpy": np.__version__, "no-such-distribution": None}


def test_the_machine_tells_its_cores_and_its_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")

    found = machine()

    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["blas"], "NumPy is loaded, so there is a BLAS"
    assert found["blas_variables"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert found["cpu"]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["memory_gib"] == pytest.approx(memory / 2**30, abs=0.1)
