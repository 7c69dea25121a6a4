"""The experiment that stops programs: every way in turn, what counts as broken, and some of the stops."""

import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from faults import stops
from faults.cluster import Cluster, Stuck

DIGITS = ["--data", "digits", "--hidden", "16", "--latent", "3", "--batch-size", "64", "--microbatch", "16"]


def test_every_setup_is_stopped_in_each_of_its_orders_by_both_signals() -> None:
    ways = {(name, order) for name, setup in stops.SETUPS.items() for order in setup.orders}
    drawn = stops.draw(2 * len(ways), random.Random(0))
    assert Counter((stop.setup, stop.order, stop.signal) for stop in drawn) == Counter(
        (name, order, number) for name, order in ways for number in (signal.SIGTERM, signal.SIGINT)
    )
    assert len(stops.draw(100, random.Random(0))) == 100


def stopped(**more: Any) -> dict[str, Any]:
    usual = {"setup": "train", "order": stops.ALL, "signal": "SIGINT", "after": 1.0, "seconds": 4.9, "codes": [0]}
    return usual | {"wrong_codes": [], "left": [], "stuck": "", "said": "words"} | more


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seconds": 5.1}, "took 5.10 s"),
        ({"codes": [0, 1], "wrong_codes": [1]}, "exit codes [0, 1]"),
        ({"left": ["tmp/s"]}, "left tmp/s"),
        ({"stuck": "not within 30 s"}, "not within 30 s"),
    ],
)
def test_what_a_stop_owes_is_counted_as_broken(wrong: dict[str, Any], words: str) -> None:
    assert stops.faults({"stops": [stopped()]}) == []
    (fault,) = stops.faults({"stops": [stopped(), stopped(**wrong)]})
    assert words in fault


def test_a_row_a_way() -> None:
    one, other = stopped(), stopped(seconds=1.0, wrong_codes=[1], left=["a", "b"])
    (row,) = stops.rows({"stops": [one, other]})
    assert (row["stops"], row["longest"], row["wrong codes"], row["left"]) == (2, 4.9, 1, 2)


def test_what_a_program_leaves_is_seen() -> None:
    with Cluster() as cluster:
        # It has written into its TMPDIR, and is still there.
        program = cluster.start("worker", "--server", f"ipc://{cluster.temporary}/s", "--processes", "1")
        cluster.until(lambda: "waiting for a server" in program.text, "it waits", 60.0)
        # The little parent and the worker.
        assert program.process.pid in cluster.alive()
        assert len(cluster.alive()) == 2
        (cluster.temporary / "leftover").touch()
        assert stops.left_in(cluster, set(stops.SHARED_MEMORY.iterdir()))[2:] == [str(Path("tmp") / "leftover")]
        with pytest.raises(Stuck, match="not within 0 s: a miracle"):
            cluster.until(lambda: False, "a miracle", 0.0)
        folder = cluster.folder
    assert cluster.alive() == {}
    assert not folder.exists()


@pytest.mark.parametrize(
    ("setup", "order", "number"),
    [
        ("train", stops.FIRST_FIRST, signal.SIGINT),
        ("server, workers", stops.LAST_FIRST, signal.SIGINT),
        ("followed servers, workers", stops.ALL, signal.SIGTERM),
        ("workers without a server", stops.FIRST_FIRST, signal.SIGTERM),
    ],
)
def test_programs_that_are_told_to_stop_are_gone_with_all_that_they_made(
    setup: str, order: str, number: signal.Signals
) -> None:
    outcome = stops.one_stop(stops.Stop(setup, order, number), DIGITS)
    # How long that takes on a machine that does nothing else is measured by the benchmark.
    assert stops.faults({"stops": [outcome | {"seconds": 0.0}]}) == []
    assert outcome["seconds"] > 0.0
