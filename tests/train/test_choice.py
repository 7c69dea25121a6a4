"""Which way of communicating is chosen for which links."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.train.choice import CANDIDATES, Link, Measured, choose, link_between, without_changes

# Of the model with 652,832 parameters, one worker: push and pull of a step.
DENSE = 2 * 4 * 652_832


def size_of(options):
    return DENSE * 2 / {"none": 1, "int8": 4, "factors": 2}[options.get("push_codec", "none")]


def measured(link, computing, size, workers=2):
    return Measured(computing, link.seconds(size), size, workers)


def chosen(link, computing=0.0022):
    return choose(measured(link, computing, 2 * DENSE), measured(link, computing, 2 * DENSE / 30), size_of)


@settings(deadline=None)
@given(st.floats(1e-5, 0.1), st.floats(1e5, 1e10))
def test_two_exchanges_of_different_size_tell_latency_and_bandwidth(latency, bandwidth) -> None:
    link = Link(latency, bandwidth)
    found = link_between(measured(link, 0.01, 1e7), measured(link, 0.01, 3e5))

    assert found.latency == pytest.approx(latency, rel=1e-3, abs=1e-7)
    assert found.bandwidth == pytest.approx(bandwidth, rel=1e-2)


def test_where_more_bytes_take_no_longer_size_does_not_matter() -> None:
    found = link_between(Measured(0.01, 0.001, 1e7, 2), Measured(0.01, 0.0012, 3e5, 2))

    assert (found.latency, found.seconds(1e12)) == (0.001, 0.001)


def test_on_a_link_that_is_fast_enough_nothing_is_given_up() -> None:
    choice = chosen(Link(0.0001, 10e9))

    assert choice.options == {}
    assert "left as it is" in choice.why


@pytest.mark.parametrize(
    ("bits_per_second", "options"),
    [
        (100e9, {}),
        (30e9, {"push_codec": "int8", "pull_codec": "update:int8"}),
        (1e9, {"local_steps": 16, "push_codec": "int8", "pull_codec": "update:int8"}),
        (1e8, {"local_steps": 128, "push_codec": "int8", "pull_codec": "update:int8"}),
        (1e3, {"local_steps": 128, "push_codec": "int8", "pull_codec": "update:int8"}),
    ],
)
def test_the_slower_the_link_the_less_is_sent(bits_per_second, options) -> None:
    assert chosen(Link(0.0001, bits_per_second / 8)).options == options


def test_the_line_says_what_was_measured_what_was_chosen_and_what_to_expect() -> None:
    """100 Mbit/s: dense 2.2 ms + 0.1 ms + 10.4 MB / 12.5 MB/s; every 128th batch a quarter of that."""
    assert chosen(Link(0.0001, 12.5e6)).why == (
        "communication: 100 Mbit/s, 0.1 ms, 2 workers; as it is 838 ms a batch, 0% of it computing; "
        "chosen --local-steps 128 --push-codec int8 --pull-codec update:int8: 3.83 ms, 57%"
    )


@settings(deadline=None)
@given(st.floats(1e-6, 0.5), st.floats(1e3, 1e11), st.floats(1e-4, 1.0))
def test_what_is_chosen_is_the_first_that_computes_three_fifths_of_the_time_or_else_the_fastest(
    latency, bandwidth, computing
) -> None:
    link = Link(latency, bandwidth)
    batches = [computing + link.seconds(size_of(o)) / o.get("local_steps", 1) for o in CANDIDATES]
    options = chosen(link, computing).options
    place = CANDIDATES.index(options)
    near = 1e-3  # what measuring the link from two exchanges leaves

    if computing / batches[place] >= 0.6 + near:
        assert all(computing / batch < 0.6 + near for batch in batches[:place])
    elif computing / batches[place] < 0.6 - near:
        assert batches[place] == pytest.approx(np.min(batches), rel=1e-2)


def test_an_asynchronous_run_sends_weights_and_not_changes() -> None:
    assert without_changes({"push_codec": "int8", "pull_codec": "update:int8"})["pull_codec"] == "int8"
    assert without_changes({}) == {}
