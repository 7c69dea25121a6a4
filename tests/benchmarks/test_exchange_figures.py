"""From answers to figures, tables and a picture."""

from pathlib import Path
from typing import Any

import pytest
from exchange.figures import figures, models
from exchange.plot import draw
from exchange.tables import bytes_table, grid_table, model_table, parts_table, ratio_table, time_table

MS = 1_000_000
SIZE = 1008


def ours(milliseconds: list[int], apply_ms: float = 0.25, sockets: int = 9000) -> dict[str, Any]:
    """A burst of one exchange a figure, each of a step of its own."""
    bursts, pushes = [], []
    for step, total in enumerate(milliseconds):
        row = [step, [0], 0, 0, 0, total * MS]
        bursts.append(
            {"ns": [total * MS], "exchanges": [row], "sent": sockets - 100, "received": 100, "interface": 9500 + step}
        )
        pushes.append([step, 0, 0, round(apply_ms * MS), True])
    left = {
        "pushes": pushes,
        "pushed": 5000 * len(bursts),
        "pulled": 5000 * len(bursts),
        "shared": 0,
        "count": len(bursts),
    }
    return {"bursts": bursts, "why": None, "left": left}


def other(milliseconds: list[int]) -> dict[str, Any]:
    return {"bursts": [{"ns": [total * MS] * 3} for total in milliseconds], "why": None}


ANSWERS = {
    "pyzmq": other([2, 4, 1]),
    "gloo all-reduce": {"bursts": [], "why": "torch is not installed"},
    "ours, tcp": ours([3, 4, 2]),
}


def test_ratios_are_of_the_same_round() -> None:
    found = figures(SIZE, ANSWERS)["ours, tcp"]

    assert found["seconds"] == {"median": 3e-3, "least": 2e-3, "most": 4e-3}
    assert found["of_pyzmq"] == 1.5
    assert (found["pyzmq_least"], found["pyzmq_most"]) == (1.0, 2.0)
    assert found["moving_of_pyzmq"] == pytest.approx((3 - 0.25) / 2)


def test_bytes_are_an_exchanges() -> None:
    found = figures(SIZE, ANSWERS)["ours, tcp"]["bytes"]

    assert found == {"tensors": 8 * SIZE, "sockets": 9000, "interface": 9500, "counted": 10_000, "shared": 0.0}


def test_sockets_that_are_not_tcp_have_no_count_of_the_kernels() -> None:
    found = figures(SIZE, {"pyzmq": other([2]), "ours": ours([1], sockets=0)})["ours"]["bytes"]

    assert (found["sockets"], found["interface"]) == (None, None)


def test_a_system_that_is_not_there_is_a_row_that_says_why() -> None:
    found = {SIZE: figures(SIZE, ANSWERS)}

    assert found[SIZE]["gloo all-reduce"]["seconds"] is None
    assert "No figure for gloo all-reduce: torch is not installed" in time_table(found)


def test_a_model_is_fitted_to_every_system_with_two_sizes() -> None:
    found = {
        SIZE: figures(SIZE, ANSWERS),
        10 * SIZE: figures(10 * SIZE, {"pyzmq": other([20]), "ours, tcp": ours([30])}),
    }

    fitted = models(found)

    assert list(fitted) == ["pyzmq", "ours, tcp"]
    assert [one["measured"] for one in fitted["ours, tcp"]["sizes"]] == [3e-3, 30e-3]
    assert fitted["pyzmq"]["apply_per_byte"] == 0.0


def test_every_table_and_the_picture_can_be_drawn(tmp_path: Path) -> None:
    found = {
        SIZE: figures(SIZE, ANSWERS),
        10 * SIZE: figures(10 * SIZE, {"pyzmq": other([20]), "ours, tcp": ours([30])}),
    }
    parts = found[SIZE]["ours, tcp"]["parts"]
    row = {"size": SIZE, "transport": "tcp", "workers": 2, "shards": 1, "seconds": 3e-3, "parts": parts}
    grid = [row | {"tensors": 100, "sent": 101, "shared": 0, "reissued": 0, "twice": 0.0, "why": None}]

    assert "1.50" in ratio_table(found)
    assert "2.750" in parts_table(found)
    assert "1.11607" in bytes_table(found)
    assert "30.000" in model_table(models(found))
    assert "1.01000" in grid_table(grid)
    lost = {"size": SIZE, "transport": "tcp", "workers": 4, "shards": 1, "parts": None, "why": "it broke"}
    assert "4 workers, 1 shards: it broke" in grid_table([*grid, lost])
    draw(found, grid, tmp_path / "plots" / "one.png", "a title")
    assert (tmp_path / "plots" / "one.png").read_bytes().startswith(b"\x89PNG")
