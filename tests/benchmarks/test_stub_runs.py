"""Stub servers and workers: whole runs of the shipped protocol, as processes, without a model."""

import contextlib
import importlib.util
from collections.abc import Iterator
from itertools import pairwise

import pytest
from exchange.contest import Place, measure, peers
from exchange.grid import steps_of
from exchange.stub_run import StubRun
from exchange.stub_server import Task
from programs import environment

SIZE = 100_000
PATIENCE = 30.0
PLACE = Place(environment())


@contextlib.contextmanager
def one_worker(transport: str, *, local: bool = False) -> Iterator[StubRun]:
    with StubRun(Task(SIZE, transport=transport), 1, variables=PLACE.variables, local=local) as run:
        yield run


def test_over_tcp_a_dense_exchange_sends_at_most_two_thousandths_more_than_its_tensors() -> None:
    with one_worker("tcp") as run:
        (answer,) = run.exchange(20, timeout=PATIENCE)
        (left,) = run.stop()

    sent = (answer["sent"] + answer["received"]) / 20
    assert 8 * SIZE < sent <= 1.002 * 8 * SIZE
    assert answer["interface"] / 20 > sent
    # The kernel and ps_vae count the same.
    assert (left["pushed"] + left["pulled"]) / left["count"] == pytest.approx(sent, rel=0.05)


def test_in_shared_memory_no_tensor_is_sent() -> None:
    with one_worker("auto", local=True) as run:
        run.exchange(20, timeout=PATIENCE)
        (left,) = run.stop()

    # But for the first weights, which may come before the memory is shared.
    assert left["shared"] >= 8 * SIZE * (left["count"] - 1)


def test_exchanges_are_as_many_as_ordered_and_each_begins_where_the_one_before_ended() -> None:
    with one_worker("auto", local=True) as run:
        first, second = run.exchange(5, timeout=PATIENCE), run.exchange(7, timeout=PATIENCE)

    for (answer,), count in ((first, 5), (second, 7)):
        rows = answer["exchanges"]
        assert len(rows) == count
        assert [row[0] for row in rows] == list(range(rows[0][0], rows[0][0] + count))
        assert all(before[5] == after[2] for before, after in pairwise(rows))
        assert all(begun <= computed <= sent <= ended for _, _, begun, computed, sent, ended in rows)


def test_two_workers_and_two_shards_take_every_step_once() -> None:
    with StubRun(Task(SIZE, 2, 2), 2, variables=PLACE.variables, compute_seconds=1e-3) as run:
        run.exchange(10, go_on=True, timeout=PATIENCE)
        left = run.stop()

    for server in left:
        completed = [step for step, _, _, _, completes in server["pushes"] if completes]
        assert completed == list(range(len(completed)))
        assert server["duplicates"] == 0


def test_a_step_of_several_workers_is_taken_apart_whole() -> None:
    found = steps_of(PLACE, SIZE, 2, 1, "tcp", 10, 2e-3)

    assert found["parts"] is not None
    assert found["parts"].compute >= 2e-3
    assert 1.0 < found["sent"] / found["tensors"] < 1.01


def test_peers_exchange_what_they_are_told() -> None:
    with peers(PLACE, touches=True) as others:
        bursts = {name: other for name, other in others.items() if not isinstance(other, str)}
        taken, failures = measure(bursts, 1000, 0.0)

    assert failures == {}
    assert set(bursts) >= {"memory copy", "pyzmq", "pyzmq, ipc"}
    assert ("gloo all-reduce" in bursts) == (importlib.util.find_spec("torch") is not None)
    for name, rounds in taken.items():
        assert len(rounds) == 3, name
        assert all(nanoseconds > 0 for burst in rounds for nanoseconds in burst["ns"]), name


def test_a_system_that_fails_leaves_the_round_and_says_why() -> None:
    answers = iter([{"ns": [10**9]}, {"ns": [10**9]}])

    def fails_in_the_second_round(size: int, count: int) -> dict[str, list[int]]:
        if (answer := next(answers, None)) is None:
            raise RuntimeError("it broke")
        return answer

    bursts = {"one": lambda size, count: {"ns": [10**9] * count}, "other": fails_in_the_second_round}
    taken, failures = measure(bursts, 1000, 0.0)

    assert failures == {"other": "it broke"}
    assert {name: len(rounds) for name, rounds in taken.items()} == {"one": 3}
