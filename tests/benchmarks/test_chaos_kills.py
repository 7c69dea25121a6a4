"""The experiment that kills servers: how it knows who is who and what was published, and what it counts as broken."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from faults import kills
from faults.published import Published, longest_gap, steps_again
from faults.roles import COORDINATOR, FOLLOWER, LEADER, Role, roles

DIGITS = ("--data", "digits", "--hidden", "16", "--latent", "3", "--batch-size", "64", "--microbatch", "16")
STEPS, EVERY = 1000, 100


def said(process: int, event: str, message: str = "", shard: int = 0) -> dict[str, Any]:
    return {"process": process, "event": event, "message": message, "shard": shard}


def training(path: Path, *steps: tuple[float, int]) -> None:
    path.write_text("".join(json.dumps({"kind": "training", "time": t, "version": v}) + "\n" for t, v in steps))


def test_a_process_is_what_it_said_last() -> None:
    lines = [
        said(1, "run"),
        said(2, "joined", "joined run 00 as shard 2: parameters 5 to 9", 2),
        said(3, "joined", "joined run 00 as follower of shard 2: parameters 5 to 9", 2),
        said(4, "checkpoint-written"),
    ]
    known = {1: Role(COORDINATOR, 1), 2: Role(LEADER, 2), 3: Role(FOLLOWER, 2)}
    assert roles(lines) == known
    assert roles([*lines, said(3, "leading", shard=2)]) == known | {3: Role(LEADER, 2)}


def test_steps_that_a_new_server_throws_away_stay_known(tmp_path: Path) -> None:
    published, path = Published(tmp_path), tmp_path / "metrics.jsonl"
    assert published.look() == 0
    training(path, (10.0, 1), (10.1, 2), (10.2, 3))
    with path.open("a") as file:
        file.write('{"kind": "training", "time": 10.3, "ver')
    assert published.look() == 3
    # A server that was started again from version 2, as it does: another file in the place of the first.
    training(tmp_path / "new", (10.0, 1), (10.1, 2))
    (tmp_path / "new").replace(path)
    assert published.look() == 3
    with path.open("a") as file:
        file.write(json.dumps({"kind": "training", "time": 14.2, "version": 3}) + "\n")
        file.write(json.dumps({"kind": "validation", "version": 3}) + "\n")
    assert published.look() == 3
    assert published.seen == [(10.0, 1), (10.1, 2), (10.2, 3), (14.2, 3)]
    assert steps_again(published.seen) == 1
    assert longest_gap(published.seen) == pytest.approx(4.0)
    assert longest_gap(published.seen, since=14.3) == 0.0


def one(kind: str, **more: Any) -> dict[str, Any]:
    usual = {"at": 7, "without_progress": 0.6, "whole_again": 2.0, "computed_again": 0, "while_writing": 3}
    outcome = {"restarted_workers": 0, "same_bits": True, "stuck": "", "digest": "0"}
    return {"victim": {"kind": kind, "shard": 2, "process": 1}, **usual, **outcome} | more


def found(*runs: dict[str, Any], replicas: int = 1) -> dict[str, Any]:
    return {"replicas": replicas, "every": 50, "peace": one(LEADER) | {"victim": None}, "kills": list(runs)}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"same_bits": False}, "other bits"),
        ({"stuck": "not within 180 s"}, "not within"),
        ({"restarted_workers": 1}, "1 worker processes"),
        ({"without_progress": 2.1}, "2.10 s without progress"),
    ],
)
def test_what_a_followed_run_owes_is_counted_as_broken(wrong: dict[str, Any], words: str) -> None:
    assert kills.faults(found(one(LEADER), one(FOLLOWER), one(COORDINATOR, without_progress=4.9))) == []
    (fault,) = kills.faults(found(one(LEADER, **wrong)))
    assert words in fault


def test_more_than_an_interval_of_checkpoints_again_is_broken() -> None:
    assert kills.faults(found(one(LEADER, computed_again=53, without_progress=9.0), replicas=0)) == []
    (fault,) = kills.faults(found(one(LEADER, computed_again=54), replicas=0))
    assert "54 steps were computed again" in fault


def test_a_row_a_kind_of_victim() -> None:
    table = kills.rows(found(one(LEADER), one(LEADER, without_progress=1.0, same_bits=False, whole_again=None)))
    assert [row["killed"] for row in table] == ["nobody", "leader"]
    assert table[1]["same bits"] == "1 of 2"
    assert (table[1]["without progress s"], table[1]["worst"]) == (0.8, 1.0)
    assert table[1]["whole again s"] == 2.0


@pytest.fixture(scope="module")
def peace() -> dict[str, Any]:
    """The run that nothing happens to."""
    undisturbed = kills.one_run(kills.Job(DIGITS, STEPS, EVERY, shards=1, replicas=0, workers=1))
    assert (undisturbed["victim"], undisturbed["stuck"]) == (None, "")
    return undisturbed


def test_a_leader_that_is_killed_costs_time_and_neither_steps_nor_bits(peace: dict[str, Any]) -> None:
    job = kills.Job(DIGITS, STEPS, EVERY, shards=2)
    disturbed = kills.one_run(job, kills.Kill((LEADER,), 300, random.Random(0)))
    assert disturbed["stuck"] == ""
    assert (disturbed["victim"]["kind"], disturbed["victim"]["shard"]) == (LEADER, 2)
    assert disturbed["at"] >= 300
    # What nobody notices was no kill.
    assert disturbed["without_progress"] > peace["without_progress"]
    assert (disturbed["restarted_workers"], disturbed["computed_again"]) == (0, 0)
    assert disturbed["digest"] == peace["digest"]


def test_a_shard_without_a_follower_is_lost_and_the_run_goes_on_from_its_checkpoint(peace: dict[str, Any]) -> None:
    job = kills.Job(DIGITS, STEPS, EVERY, shards=2, replicas=0, workers=1)
    disturbed = kills.one_run(job, kills.Kill((LEADER,), 450, random.Random(0)))
    assert disturbed["stuck"] == ""
    # The program that lost its shard and the worker, then those that went on.
    assert disturbed["codes"] == [1, 1, 0, 0]
    assert 0 < disturbed["computed_again"] <= EVERY + disturbed["while_writing"]
    assert disturbed["digest"] == peace["digest"]
