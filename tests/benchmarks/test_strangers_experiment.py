"""The experiment with strangers: they come and are not let in, who may come in is, and what counts as broken."""

from typing import Any

import pytest
from faults import strangers
from faults.crowd import come
from ps.test_sockets import FirstServer, worker

from ps_vae.ps.client import Outcome
from ps_vae.ps.outbox import RunEnded
from ps_vae.ps.security.door import new_pair
from ps_vae.ps.security.keys import ClientKeys, ServerKeys


def test_of_strangers_none_is_answered_of_those_who_are_allowed_all_are_and_a_worker_goes_on() -> None:
    own, good, bad = new_pair(), new_pair(), new_pair()
    allowed_in = {good.public: "good", bad.public: "bad"}
    with FirstServer("tcp://127.0.0.1:*", keys=ServerKeys(own, allowed_in.get), steps=1_000_000) as server:
        one = worker(server.address, keys=ClientKeys(good, own.public))
        given = ClientKeys(bad, own.public)
        allowed = come(server.address, "given key", 5, 1.0, 0.0, given)
        del allowed_in[bad.public]
        came = {kind: come(server.address, kind, 30, 0.5, 0.0, given) for kind in strangers.KINDS}
        assert server.ended_when_told() == RunEnded(False, "stopped")
        assert one.outcome() == Outcome(False, "stopped")

    assert allowed == {"came": 5, "answered": 5}
    assert came == {kind: {"came": 30, "answered": 0} for kind in strangers.KINDS}
    assert server.shard.version > 0


def held(memory: int = 100, descriptors: int = 30) -> dict[str, Any]:
    return {"memory": [memory, memory], "descriptors": [descriptors, descriptors], "seconds": [1.0, 1.0]}


def visit(kind: str, **changes: Any) -> dict[str, Any]:
    usual = {"kind": kind, "beside": 95.0, "alone": 100.0, "us": 400.0, "most": 900, "left": held(), "came": 1000}
    return {**usual, "answered": 0, **changes}


def found(**changes: Any) -> dict[str, Any]:
    visits = [visit(kind) for kind in strangers.KINDS * 2]
    usual = {"count": 1000, "visits": visits, "stuck": "", "before": held(), "after": held(), "there": True}
    return {**usual, "given_key": {"answered": 1}, "codes": [0], "same_bits": True, "version": 3, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"visits": [visit("no key", answered=1)]}, "no key: 1 were answered"),
        ({"visits": [visit("half-open", beside=80.0)]}, "half-open: the worker has 0.80"),
        ({"after": held(descriptors=60)}, "descriptors of the servers"),
        ({"given_key": {"answered": 0}}, "was not let in at first"),
        ({"there": False, "last_words": "a traceback"}, "a traceback"),
        ({"same_bits": False}, "other bits"),
        ({"codes": [0, 1]}, "exit codes"),
    ],
)
def test_what_strangers_may_not_do_is_said(changes: dict[str, Any], words: str) -> None:
    assert strangers.faults(found()) == []
    (fault,) = strangers.faults(found(**changes))
    assert words in fault


def test_memory_that_grows_after_the_first_round_is_said_of_each_server() -> None:
    assert strangers.faults(found(after=held(105))) == []
    faults = strangers.faults(found(after=held(106)))
    assert [fault.split(":")[0] for fault in faults] == ["the server of shard 1", "the server of shard 2"]


def test_the_table_has_a_row_a_kind() -> None:
    table = strangers.rows(found())
    assert [row["kind"] for row in table] == list(strangers.KINDS)
    assert (table[0]["came"], table[0]["answered"], table[0]["descriptors"], table[0]["left"]) == (2000, 0, 900, 60)
