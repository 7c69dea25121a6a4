"""Sums that are kept are the sums that are: against adding up from nothing."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps_vae.ps.crew import Crew
from ps_vae.ps.members import Client

paces = st.none() | st.floats(1e-4, 10.0)
changes = st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["put", "drop"]), paces), max_size=60)


def client(number):
    return Client(b"%16d" % number, number, f"w{number}", "worker", 0.0)


@given(changes, st.sets(st.integers(0, 7)))
def test_what_a_crew_does_without_some_is_what_the_others_do(events, some):
    workers, crew = [client(number) for number in range(8)], Crew()
    there = {}
    for number, change, pace in events:
        workers[number].pace = pace
        if change == "put":
            crew.put(workers[number])
            there[number] = pace
        else:
            crew.drop(workers[number])
            there.pop(number, None)
    without = Crew()
    for number in some & there.keys():
        workers[number].pace = there[number]
        without.put(workers[number])

    known = [pace for pace in there.values() if pace is not None]
    usual = sum(known) / len(known) if known else 1.0
    others = sum(1 / (pace or usual) for number, pace in there.items() if number not in some)
    assert Counter(worker.name for worker in crew) == Counter(f"w{number}" for number in there)
    assert len(crew) == len(there)
    assert crew.usual_pace == pytest.approx(usual, rel=1e-6)
    assert crew.speed_without(without, usual) == pytest.approx(others, rel=1e-6, abs=1e-6)


def test_putting_a_worker_again_is_news_only_at_another_pace():
    worker, crew = client(1), Crew()

    assert crew.put(worker)
    assert not crew.put(worker)
    worker.pace = 0.5
    assert crew.put(worker)
    assert worker in crew
    crew.drop(worker)
    assert worker not in crew
    assert crew.usual_pace == 1.0
