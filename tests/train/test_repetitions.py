"""A fault that repeats is said once, and then counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps_vae.lines import ERROR, INFO, WARNING, Line
from ps_vae.train.repetitions import Repetitions


def refused(number: int, code: str = "malformed") -> Line:
    return Line("refused", "refused a message of {who}: {code}", level=WARNING, who=f"peer {number}", code=code)


def member(name: str, change: str = "late") -> Line:
    return Line(f"member-{change}", "{name} {change}", level=WARNING, name=name, change=change)


def test_the_first_is_said_at_once_and_the_others_in_one_line_with_their_number() -> None:
    repetitions = Repetitions()
    assert repetitions.heard(refused(0), 0.0) == ["refused a message of peer 0: malformed"]

    assert [repetitions.heard(refused(number), number / 10) for number in range(1, 101)] == [[]] * 100
    assert repetitions.due(29.9) == []

    (line,) = repetitions.due(30.0)
    assert line == "refused a message of peer 100: malformed (100 like it in 30 s)"
    assert (line.event, line.level, line.fields["times"]) == ("refused", WARNING, 100)


def test_while_it_goes_on_there_is_a_line_every_thirty_seconds_and_after_a_pause_it_is_news_again() -> None:
    repetitions, said = Repetitions(), []
    for tenth in range(1000):
        said += [(tenth, line) for line in repetitions.heard(refused(0), tenth / 10)]
        said += [(tenth, line) for line in repetitions.due(tenth / 10)]
    assert [tenth for tenth, _ in said] == [0, 300, 600, 900]

    assert len(repetitions.due(130.0)) == 1
    assert repetitions.due(160.0) == []
    assert repetitions.heard(refused(1), 170.0) == [refused(1)]


def test_two_in_all_are_two_plain_lines() -> None:
    repetitions = Repetitions()
    repetitions.heard(refused(0), 0.0)
    repetitions.heard(refused(1), 1.0)

    assert repetitions.due(30.0) == [refused(1)]


def test_other_codes_other_members_and_other_events_are_news() -> None:
    repetitions = Repetitions()
    news = [refused(0), refused(0, "stale"), member("a"), member("b"), member("a", "lost")]

    assert [repetitions.heard(line, 0.0) for line in news] == [[line] for line in news]


@pytest.mark.parametrize("level", [INFO, ERROR])
def test_only_what_is_wrong_is_counted(level: str) -> None:
    repetitions = Repetitions()
    line = Line("member-joined", "a joined", level=level, name="a")

    said = [repetitions.heard(line, 0.0) for _ in range(3)]

    assert said == ([[line]] * 3 if level == INFO else [[line], [], []])


def test_nothing_that_was_counted_is_lost_at_the_end() -> None:
    repetitions = Repetitions()
    for number in range(4):
        repetitions.heard(refused(number), 0.0)

    assert repetitions.rest(5.0) == ["refused a message of peer 3: malformed (3 like it in 5 s)"]
    assert Repetitions().rest(5.0) == []


@given(st.lists(st.text(max_size=3), max_size=50))
def test_every_line_is_said_or_counted(codes: list[str]) -> None:
    repetitions = Repetitions()
    said = [line for number, code in enumerate(codes) for line in repetitions.heard(refused(number, code), 0.0)]
    rest = repetitions.rest(1.0)

    assert len(said) + sum(line.fields.get("times", 1) for line in rest) == len(codes)


def test_names_that_peers_make_up_cost_a_bounded_number_of_lines() -> None:
    repetitions = Repetitions()

    said = [line for number in range(10_000) for line in repetitions.heard(member(f"made up {number}"), 0.0)]

    assert len(said) <= 300
    assert sum(line.fields.get("times", 1) for line in repetitions.rest(1.0)) == 10_000 - len(said)
