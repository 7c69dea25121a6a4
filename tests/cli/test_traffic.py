"""What was sent and where the time went, in words."""

import pytest

from ps_vae.cli.traffic import fewer, spent


@pytest.mark.parametrize(
    ("pushed", "pulled", "dense", "words"),
    [
        (0, 0, 0, ""),
        (1000, 1020, 2000, ""),
        (500, 500, 4000, "4.0 times fewer than dense"),
        (10, 10, 2540, "127 times fewer than dense"),
        (1, 0, 4_064_000, "4,064,000 times fewer than dense"),
    ],
)
def test_bytes_are_compared_with_dense_exchanges(pushed, pulled, dense, words) -> None:
    assert fewer({"bytes_pushed": pushed, "bytes_pulled": pulled, "bytes_dense": dense}) == words


def test_the_workers_time_is_told_in_parts() -> None:
    parts = {"computing": 0.905, "encoding": 0.02, "waiting": 0.075}
    assert spent({"time": parts}) == "90% computing, 2% encoding, 8% waiting"


def test_before_anything_was_computed_nothing_is_told() -> None:
    assert spent({"time": {}}) == ""
