"""The picture of frontier.py: labels that can be read, and what is not in it."""

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pareto.labels import Box, places
from pareto.plot import draw

PANEL = Box(450.0, 300.0, 900.0, 600.0)
WORDS = (80.0, 16.0)
spots = st.tuples(st.floats(60.0, 840.0), st.floats(60.0, 540.0))


@settings(deadline=None, max_examples=60)
@given(st.lists(spots, min_size=1, max_size=16))
def test_no_label_covers_a_mark_or_a_label_or_leaves_the_panel(found: list[tuple[float, float]]) -> None:
    marks = [Box(x, y, 14.0, 14.0) for x, y in found]

    boxes = places(marks, [WORDS] * len(marks), PANEL)

    for number, box in enumerate(boxes):
        left, right, low, high = edges(box)
        assert left >= 0.0
        assert right <= 900.0
        assert low >= 0.0
        assert high <= 600.0
        for other in [*marks, *boxes[:number]]:
            a, b, c, d = edges(other)
            assert left >= b or right <= a or low >= d or high <= c, f"{box} lies on {other}"


def test_a_lonely_label_stands_right_above_its_mark() -> None:
    (box,) = places([Box(100.0, 100.0, 14.0, 14.0)], [WORDS], PANEL)

    assert box == Box(100.0, 115.0, *WORDS)


def test_a_method_that_has_not_trained_is_named_and_not_drawn_to_scale(tmp_path: Path) -> None:
    rows = {
        "dense": row(40_000.0, 0.0),
        "near": row(400.0, -0.2),
        "diverged": row(100.0, -3e9),
        "without": {**row(1.0, 0.0), "bytes_per_example": None, "to_dense": None},
        "ddp": {**row(20_000.0, 0.4), "peer": True},
    }

    for found in ({2: rows}, {2: rows, 4: rows}, {2: {}}, {}):
        draw(found, tmp_path / "deep" / "a.png", "of a test")
        assert (tmp_path / "deep" / "a.png").read_bytes().startswith(b"\x89PNG")


def row(size: float, to_dense: float) -> dict[str, Any]:
    mean = -100.0 + to_dense
    spread = {"mean": mean, "least": mean - 0.1, "most": mean + 0.1}
    return {"bytes_per_example": size, "to_dense": to_dense, "peer": False, **spread}


def edges(box: Box) -> tuple[float, float, float, float]:
    """left, right, bottom, top"""
    near = 1e-9
    return (
        box.x - box.width / 2 + near,
        box.x + box.width / 2 - near,
        box.y - box.height / 2 + near,
        box.y + box.height / 2 - near,
    )
