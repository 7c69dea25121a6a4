"""The pace that is shown is that of the last ten seconds, however fast or slow the run is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps_vae.ps.standing import Speed


def noted(*times: float) -> Speed:
    """Of a run that reached version 1, 2, … at these times."""
    speed = Speed()
    for version, time in enumerate(times, start=1):
        speed.note(time, version)
    return speed


def every(seconds: float, *, start: float, stop: float) -> list[float]:
    return [start + number * seconds for number in range(round((stop - start) / seconds))]


def test_a_run_that_becomes_slow_is_shown_over_all_of_its_seconds() -> None:
    speed = noted(*every(0.01, start=0.0, stop=5.0), *every(0.2, start=5.0, stop=9.0))

    # 500 steps, then 20, in nine seconds.
    assert speed.per_second(9.0) == pytest.approx(520 / 9, rel=0.005)


@pytest.mark.parametrize("pace", [0.2, 1.0, 7.0, 100.0, 5_000.0])
def test_a_steady_pace_is_shown_as_it_is(pace: float) -> None:
    times = every(1 / pace, start=0.0, stop=30.0)

    assert noted(*times).per_second(times[-1]) == pytest.approx(pace, rel=0.005)


def test_a_standstill_takes_the_pace_down_as_it_lasts() -> None:
    speed = noted(*every(0.01, start=0.0, stop=20.0))

    assert [round(speed.per_second(20.0 + still)) for still in (0, 3, 9, 10, 60)] == [100, 70, 10, 0, 0]


def test_what_goes_on_after_a_standstill_counts_over_ten_seconds() -> None:
    speed = noted(*every(0.01, start=0.0, stop=5.0), *every(0.01, start=100.0, stop=102.0))

    assert speed.per_second(102.0) == pytest.approx(200 / 10, rel=0.01)


def test_nothing_is_no_pace_and_neither_is_one_version() -> None:
    assert Speed().per_second(5.0) == 0.0
    assert noted(1.0).per_second(5.0) == 0.0
    assert math.isfinite(noted(1.0, 1.0).per_second(1.0))


@given(st.lists(st.floats(0.0, 0.3), min_size=1, max_size=500))
def test_the_pace_is_that_of_an_account_of_every_step(gaps: list[float]) -> None:
    times = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    now = times[-1]
    since = max(times[0], now - 10.0)

    found = noted(*times).per_second(now) * (now - since)

    # The edge of the ten seconds lies between two samples, which are less than a tenth of a second apart or neighbours.
    certain = sum(time > since + 0.1 for time in times)
    possible = sum(time > since - 0.1 for time in times)
    assert certain - 1 - 1e-6 <= found <= possible + 1e-6


def test_a_fast_run_costs_few_samples() -> None:
    speed = noted(*every(1e-4, start=0.0, stop=12.0))

    assert len(speed._samples) <= 250
