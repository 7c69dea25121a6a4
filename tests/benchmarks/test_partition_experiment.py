"""The experiment that cuts hosts off: what a cut does to connections, and what counts as broken."""

from typing import Any

import pytest
from exchange import shaping
from exchange.nodes import Node
from faults import partition


def test_a_cut_takes_the_switch_s_port_of_that_node_and_a_heal_puts_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(shaping, "_run", lambda *command: ran.append(" ".join(command)))
    node = Node("198.18.0.3", "eth0", ("ip", "netns", "exec", "psb-77-2"))

    shaping.cut(node)
    shaping.heal(node)

    assert ran == [
        "ip -n psb-77-switch link set port2 nomaster",
        "ip -n psb-77-switch link set port2 master switch",
    ]


def cut_off(who: str, **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"who": who, "before": 50.0, "while_cut": 30.0, "after": 49.0, "goes_on": 2.0}
    usual |= {"said_so": True, "gave_up": None, "code": None, "connect_timeout": None}
    if who == "coordinator":
        usual |= {"while_cut": 0.0, "gave_up": 14.0, "code": 1, "connect_timeout": 5.0}
    return usual | changes


def found(*cuts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    run = {"way": "keys", "cuts": list(cuts), "stuck": "", "version": 7, "codes": [0, 0, 0], "same_bits": True}
    return {"seconds": 30.0, "runs": [run | changes]}


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (cut_off("worker", goes_on=11.0), "11.0 s without a step"),
        (cut_off("worker", while_cut=10.0), "10.0 steps/s meanwhile"),
        (cut_off("worker", said_so=False), "did not say so"),
        (cut_off("coordinator", goes_on=12.0), "12.0 s without a step"),
        (cut_off("coordinator", gave_up=17.0), "gave up after 17.0 s, 16 are allowed"),
        (cut_off("coordinator", gave_up=None), "gave up after None s"),
        (cut_off("coordinator", code=0), "exit code is 0"),
    ],
)
def test_what_a_cut_may_not_cost_is_said(cut: dict[str, Any], words: str) -> None:
    assert partition.faults(found(cut_off("worker"), cut_off("coordinator"), cut_off("leader", said_so=False))) == []
    (fault,) = partition.faults(found(cut))
    assert words in fault
    assert f"keys, {cut['who']} cut off" in fault


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"same_bits": False}, "other bits"), ({"codes": [0, 1, 0]}, "exit codes"), ({"stuck": "no step"}, "no step")],
)
def test_what_a_run_with_cuts_owes_is_said(changes: dict[str, Any], words: str) -> None:
    (fault,) = partition.faults(found(cut_off("worker"), **changes))
    assert words in fault


def test_the_table_has_shares_of_the_pace_before() -> None:
    worker, coordinator = partition.rows(found(cut_off("worker"), cut_off("coordinator")))
    assert (worker["while cut"], worker["after"], worker["gave up s"]) == (0.6, 0.98, None)
    assert (coordinator["while cut"], coordinator["gave up s"], coordinator["same bits"]) == (0.0, 14.0, "yes")
