"""The benchmark of a node's bytes: what it counts as broken, what its tables show, and one run."""

from typing import Any

import node_bytes
import pytest
import report
from exchange.nodes import HERE


def figures(of_one: float, *, same_bits: bool = True) -> dict[str, Any]:
    return {"sent": 1e6, "received": 2e6, "of_one": of_one, "same_bits": same_bits, "examples_per_second": 10.0}


@pytest.mark.parametrize(
    ("of_one", "same_bits", "wrong"), [(1.04, True, False), (1.06, True, True), (1.0, False, True), (0.9, True, False)]
)
def test_a_node_as_one_may_send_five_hundredths_more_and_no_other_bits(
    of_one: float, same_bits: bool, wrong: bool
) -> None:
    found = {"1 process": figures(1.0), "4 processes": figures(3.3), "4 as one": figures(of_one, same_bits=same_bits)}
    assert node_bytes.is_wrong(found) is wrong


def test_the_tables_have_a_row_a_way() -> None:
    (row,) = node_bytes.rows({"4 as one": figures(1.0)})
    assert (row["sent MB"], row["received MB"], row["of one"], row["bits"]) == (1.0, 2.0, 1.0, "same")
    pace = {"examples_per_second": report.summary([1.0, 3.0, 2.0]), "of_apart": 0.5, "same_bits": False}
    (row,) = node_bytes.rows({"2 as one, shm": pace})
    assert (row["examples/s"], row["least to most"], row["bits"]) == (2.0, "1 to 3", "DIFFERENT")


def test_a_run_is_counted_timed_and_has_the_bits_of_one_process() -> None:
    one, _, together, killed = node_bytes.ways(2)
    assert killed.kills
    assert one.processes == 1
    plain, summed = (node_bytes.run(way, 12, HERE, HERE, "tcp") for way in (one, together))
    assert summed["digest"] == plain["digest"]
    # Of 652,832 weights: a push and a pull a step at least.
    assert summed["sent"] >= 2 * 12 * 4 * 652_832
    assert summed["examples_per_second"] > 0
