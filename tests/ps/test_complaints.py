"""Of refusals without number a bounded number is told, and all are accounted for."""

import re

from hypothesis import given
from hypothesis import strategies as st

from ps_vae.ps.complaints import Complaints
from ps_vae.ps.outbox import Refused

PERIOD = 5.0


def refused(code, text="no"):
    return Refused("x", code, text)


def test_the_first_refusals_of_a_kind_are_told_at_once_and_the_rest_as_one_when_the_period_is_over():
    complaints = Complaints()
    complaints.due(0.0)

    told = [complaints.is_told(refused("malformed", f"{number}")) for number in range(100)]

    assert told == [True] * 3 + [False] * 97
    assert complaints.due(PERIOD - 0.01) == []
    assert complaints.due(PERIOD) == [refused("malformed", "99 (the last of 97 more in 5 s)")]
    assert complaints.due(3 * PERIOD) == []
    assert complaints.is_told(refused("malformed"))


def test_a_flood_of_one_kind_hides_no_other():
    complaints = Complaints()
    for _ in range(1000):
        complaints.is_told(refused("malformed"))

    assert complaints.is_told(refused("not-finite"))


def test_kinds_that_are_made_up_are_told_a_bounded_number_of_times():
    complaints = Complaints()

    told = sum(complaints.is_told(refused(f"{number}")) for number in range(10_000))

    assert told + len(complaints.due(0.0)) < 300


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 3.0)), max_size=200))
def test_every_refusal_is_told_or_counted_in_one_that_is(events):
    complaints, now, lines = Complaints(), 0.0, []
    for code, pause in events:
        now += pause
        lines += complaints.due(now)
        if complaints.is_told(refused(code)):
            lines.append(refused(code))
    lines += complaints.due(now + PERIOD)

    counts = dict.fromkeys("abc", 0)
    for line in lines:
        more = re.search(r"the last of (\d+) more", line.text)
        counts[line.code] += int(more[1]) if more else 1
    assert counts == {code: sum(known == code for known, _ in events) for code in "abc"}
