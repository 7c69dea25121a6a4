"""A node's microbatches are divided by the members' paces, and stay where they were as long as that is good."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps_vae.train.node.division import shares
from ps_vae.train.node.pace import Pace

PACES = st.lists(st.floats(1e-4, 1e2), min_size=1, max_size=8)


@given(st.integers(0, 300), PACES)
def test_every_microbatch_has_one_member(left: int, paces: list[float]) -> None:
    division = shares(left, paces)
    assert sum(division) == left
    assert min(division) >= 0


@given(st.integers(1, 7), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_no_other_division_ends_more_than_a_microbatch_sooner(left: int, paces: list[int]) -> None:
    def seconds(division: tuple[int, ...]) -> int:
        return max(share * pace for share, pace in zip(division, paces, strict=True))

    every = [division for division in product(range(left + 1), repeat=len(paces)) if sum(division) == left]
    assert seconds(shares(left, paces)) <= min(map(seconds, every)) + max(paces)


@pytest.mark.parametrize(
    ("left", "paces", "expected"),
    [
        (4, [1.0], (4,)),
        (4, [1.0, 1.0], (2, 2)),
        (4, [1.0] * 4, (1, 1, 1, 1)),
        (6, [1.0, 2.0], (4, 2)),
        (4, [1.0, 1000.0], (4, 0)),
        (0, [1.0, 1.0], (0, 0)),
    ],
)
def test_who_is_twice_as_fast_has_twice_as_much(left: int, paces: list[float], expected: tuple[int, ...]) -> None:
    assert shares(left, paces) == expected


def test_a_division_stays_until_another_ends_a_tenth_sooner() -> None:
    assert shares(10, [1.0, 1.05], (5, 5)) == (5, 5)
    # 5 of the slower one take 6.5 s; 6 and 4 are done after 6.
    assert shares(10, [1.0, 1.15], (5, 5)) == (5, 5)
    assert shares(10, [1.0, 1.4], (5, 5)) == (6, 4)


@pytest.mark.parametrize("before", [(3, 3), (2, 1, 1), (4,), ()])
def test_a_division_of_something_else_does_not_stay(before: tuple[int, ...]) -> None:
    assert shares(4, [1.0, 1.0], before) == (2, 2)


def test_a_pace_follows_what_is_measured() -> None:
    pace = Pace()
    pace.measured(0.4, 4)
    assert pace.seconds == pytest.approx(0.1)
    for _ in range(50):
        pace.measured(0.6, 2)
    assert pace.seconds == pytest.approx(0.3, rel=1e-3)


def test_a_slow_member_without_a_share_is_believed_to_be_as_fast_as_the_fastest_in_the_end_and_not_faster() -> None:
    pace = Pace(10.0)
    for _ in range(1000):
        pace.had_no_share(0.5)
    assert pace.seconds == 0.5
    quick = Pace(0.1)
    quick.had_no_share(0.5)
    assert quick.seconds == 0.1


def test_a_member_is_waited_for_several_times_as_long_as_expected() -> None:
    assert Pace(1.0).patience(3) == 12.0
    assert Pace(0.001).patience(3) == 0.25
    assert Pace().patience(3) == 5.0
