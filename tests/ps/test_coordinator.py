"""Who is let in, who is sent away, and how a run ends."""

import copy
import json

import numpy as np
import pytest

from ps_vae.errors import PeerError
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.identity import FIRST
from ps_vae.ps.messages import (
    PROTOCOL,
    Admit,
    Applied,
    Bye,
    Error,
    Hello,
    Join,
    Milestone,
    Push,
    Ready,
    Report,
    Snapshot,
    State,
    Status,
    Stop,
    TakeSnapshot,
    Trouble,
    Welcome,
    Work,
)
from ps_vae.ps.outbox import Member, RunEnded, Send, ShardAddress, SnapshotTaken, Told
from ps_vae.ps.partition import partition
from ps_vae.ps.rules import RunRules
from ps_vae.ps.state import ShardState

RUN = b"r" * 16
SESSION = b"s" * 16
SERVER = b"server-1".ljust(16)


def new_coordinator(*, shards=1, steps=10, milestone=5, consistency="bsp", reproducible=False, version=0):
    rules = RunRules(RUN, 2, steps, parse_consistency(consistency), milestone, metrics=2)
    initial = ShardState(version, np.arange(32, dtype=np.float32), {"m": np.ones(32, np.float32)})
    return Coordinator(rules, partition(32, shards), "tcp://*:1", b"{}", initial, reproducible=reproducible)


def started(**options):
    machine = new_coordinator(**options)
    version = options.get("version", 0)
    for number in range(1, options.get("shards", 1)):
        machine.handle(
            f"s{number}", Join(PROTOCOL, f"server-{number}".encode().ljust(16), f"tcp://s{number}:1", False), 0.0
        )
    apply(machine, version)
    return machine


def apply(machine, version, now=0.0):
    return [
        output
        for shard in machine.shards
        for output in machine.handle("s", applied(machine, shard.number, version), now)
    ]


def applied(machine, number, version):
    """What the server says that leads the shard."""
    session = machine.shards[number].session or FIRST.session
    return Applied(RUN, number, version, (), 0, 0, 0, 0, 0, None, None, session=session)


def snapshot(machine, version, now=0.0):
    parts = [
        Snapshot(RUN, s.number, version, (), ("m",), (np.zeros(s.slice.size, np.float32),) * 2) for s in machine.shards
    ]
    return [output for part in parts for output in machine.handle("s", part, now)]


def pass_time(machine, start, end):
    """What it returns while it is called twice a second, as a process that does not stand still is."""
    times = [start + 0.5 * number for number in range(int(2 * (end - start)))]
    return [output for now in [*times, end] for output in machine.tick(now)]


def session(name):
    return name.encode().ljust(16)


def hello(name, *, role="worker", fingerprint="same", protocol=PROTOCOL):
    return Hello(protocol, session(name), role, name, fingerprint)


def ready(name, ticket=0, nanoseconds=0, encoding=0, waiting=0):
    return Ready(session(name), ticket, nanoseconds, encoding, waiting, 0)


def enter(machine, name, now=0.0, **words):
    return machine.handle(name, hello(name, **words), now)


def work_for(machine, name, now=0.0):
    enter(machine, name, now)
    return sent(machine.handle(name, ready(name), now), Work)[0]


def sent(outputs, kind):
    return [output.message for output in outputs if isinstance(output, Send) and isinstance(output.message, kind)]


def refused(machine, message, sender="x"):
    """The code of the refusal; nothing has changed."""
    before = copy.deepcopy({name: value for name, value in vars(machine).items() if name != "_watch"})
    with pytest.raises(PeerError) as refusal:
        machine.handle(sender, message, 0.0)
    after = {name: value for name, value in vars(machine).items() if name != "_watch"}
    assert json.dumps(plain(before)) == json.dumps(plain(after))
    return refusal.value.code


def plain(value, seen=()):
    if id(value) in seen:
        return "..."
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return [[plain(key, seen), plain(inner, seen)] for key, inner in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner, seen) for inner in value]
    names = getattr(value, "__slots__", None) or getattr(value, "__dict__", None)
    if names and type(value).__module__.startswith("ps_vae"):
        return [[name, plain(getattr(value, name), (*seen, id(value)))] for name in names]
    return repr(value)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (hello("w", protocol=PROTOCOL + 1), "protocol"),
        (hello("w", role="boss"), "bad-role"),
        (hello("known", role="evaluator"), "bad-role"),
        (ready("w"), "unknown-session"),
        (ready("eva"), "bad-role"),
        (Report(session("known"), 1, (), 0), "bad-role"),
        (Report(session("w"), 1, (), 0), "unknown-session"),
        (Trouble(session("w"), 1, ""), "unknown-session"),
        (Bye(session("w")), "unknown-session"),
        (Join(PROTOCOL + 1, SERVER, "a", False), "protocol"),
        (Join(PROTOCOL, b"another server!!", "a", False), "full"),
        (Applied(b"x" * 16, 0, 1, (), 0, 0, 0, 0, 0, None, None), "wrong-run"),
        (Applied(RUN, 7, 1, (), 0, 0, 0, 0, 0, None, None), "bad-shard"),
        (Applied(RUN, 0, 11, (), 0, 0, 0, 0, 0, None, None), "bad-step"),
        (Applied(RUN, 0, 1, (), 0, 0, 0, 0, 0, None, None, session=SERVER), "deposed"),
        (Applied(RUN, 1, 1, (), 0, 0, 0, 0, 0, None, None, session=FIRST.session), "deposed"),
        (Snapshot(b"x" * 16, 0, 5, (), (), ()), "wrong-run"),
        (Snapshot(RUN, 7, 5, (), (), ()), "bad-shard"),
        (Snapshot(RUN, 0, 5, (), (), ()), "bad-size"),
        (Snapshot(RUN, 0, 5, (), ("m",), (np.zeros(16, np.float32), np.zeros(15, np.float32))), "bad-size"),
        (Snapshot(RUN, 0, 5, (), ("x",), (np.zeros(16, np.float32), np.zeros(16, np.float32))), "bad-size"),
        (Push(RUN, 0, SESSION, 1, 0, 0, 2, 0, (), None, ()), "unknown-message"),
        (Stop(False, ""), "unknown-message"),
    ],
)
def test_a_message_that_does_not_fit_is_refused_and_changes_nothing(message, code):
    machine = started(shards=2)
    enter(machine, "known")
    enter(machine, "eva", role="evaluator")

    assert refused(machine, message) == code


def test_while_a_shard_is_missing_clients_are_told_to_wait_for_it():
    machine = new_coordinator(shards=2)
    machine.handle("s", Applied(RUN, 0, 0, (), 0, 0, 0, 0, 0, None, None), 0.0)

    (error,) = sent(enter(machine, "w"), Error)

    assert error == Error("starting", "the run waits for shard 2 of 2; start it with start-server --join")
    assert not machine.is_started
    assert machine.state(0.0)["phase"] == "starting"


def test_clients_that_came_early_are_welcome_as_soon_as_the_last_shard_is_there():
    machine = new_coordinator(shards=2, reproducible=True)
    enter(machine, "a")
    enter(machine, "b", fingerprint="other")
    enter(machine, "gone")
    machine.forget("gone", 0.0)
    machine.handle("s", Join(PROTOCOL, SERVER, "tcp://s1:1", False), 0.0)

    outputs = apply(machine, 0)

    assert [(output.to, output.message.KIND) for output in outputs if isinstance(output, Send)] == [
        ("a", "welcome"),
        ("b", "error"),
    ]
    assert apply(machine, 0) == []


def test_clients_that_came_early_hear_of_an_early_end():
    machine = new_coordinator(shards=2)
    enter(machine, "a")

    assert Send("a", Stop(False, "stopped before every shard was there")) in machine.stop(0.0)


def test_a_shard_that_was_not_admitted_is_not_listened_to():
    machine = new_coordinator(shards=2)

    assert refused(machine, Applied(RUN, 1, 0, (), 0, 0, 0, 0, 0, None, None)) == "bad-shard"


def test_a_joining_server_gets_its_slice_and_the_same_one_when_it_asks_again():
    machine = new_coordinator(shards=2)

    first, again = (sent(machine.handle("s", Join(PROTOCOL, SERVER, "a", False), 0.0), Admit)[0] for _ in range(2))

    assert (first.shard, first.start, first.stop, first.names) == (1, 16, 32, ("m",))
    assert [array.tolist() for array in first.payload] == [list(range(16, 32)), [1.0] * 16]
    assert again.shard == 1


def test_when_all_shards_are_there_a_client_is_welcome():
    machine = started(shards=2)

    outputs = enter(machine, "w")

    (welcome,) = sent(outputs, Welcome)
    assert welcome.shards == (("", 0, 16), ("tcp://s1:1", 16, 32))
    assert Member("w", "joined", "worker") in outputs


def test_a_fingerprint_that_differs_is_said_once():
    machine = started()
    enter(machine, "a")

    changes = [[o.change for o in enter(machine, name, fingerprint="other") if isinstance(o, Member)] for name in "bc"]

    assert changes == [["differs", "joined"], ["joined"]]


def test_a_fingerprint_that_differs_is_refused_in_a_reproducible_run():
    machine = started(reproducible=True)
    enter(machine, "a")

    assert refused(machine, hello("b", fingerprint="other")) == "fingerprint"


def test_an_evaluators_fingerprint_does_not_matter():
    machine = started(reproducible=True)
    enter(machine, "a")

    assert sent(enter(machine, "e", role="evaluator", fingerprint=""), Welcome)


def test_work_that_was_lost_on_the_way_is_sent_again():
    machine = started()
    work = work_for(machine, "w")

    assert sent(machine.handle("w", ready("w"), 1.0), Work) == [work]


def test_trouble_goes_to_another_worker_and_the_second_time_ends_the_run():
    machine = started()
    first = work_for(machine, "a")

    outputs = machine.handle("a", Trouble(session("a"), first.ticket, "nan in encoder.0.weight"), 0.0)
    (again,) = sent(outputs, Work)
    assert again.step == first.step
    outputs = machine.handle("a", Trouble(session("a"), again.ticket, "nan in encoder.0.weight"), 0.0)

    assert machine.ended == RunEnded(True, "a: nan in encoder.0.weight")
    assert sent(outputs, Stop) == [Stop(True, "a: nan in encoder.0.weight")]


def test_the_same_trouble_told_by_two_shards_counts_once():
    machine = started()
    first = work_for(machine, "a")
    for _ in range(2):
        machine.handle("a", Trouble(session("a"), first.ticket, "nan"), 0.0)

    assert machine.ended is None


def test_trouble_with_work_that_is_over_does_not_take_the_next_away():
    machine = started()
    first = work_for(machine, "a")
    (second,) = sent(machine.handle("a", ready("a", first.ticket, 1), 0.0), Work)
    outputs = machine.handle("a", Trouble(session("a"), first.ticket, "nan"), 0.0)

    # The work of step 0 is lost, and step 1 cannot begin before it: it takes its place.
    assert [work.step for work in sent(outputs, Work)] == [0]
    assert second.step == 1
    assert machine.ended is None


def test_one_that_says_bye_or_whose_connection_is_closed_gives_its_work_to_others():
    for leave in (
        lambda machine: machine.handle("a", Bye(session("a")), 0.0),
        lambda machine: machine.forget("a", 0.0),
    ):
        machine = started()
        lost = work_for(machine, "a")
        enter(machine, "b")
        machine.handle("b", ready("b"), 0.0)
        (work,) = sent(leave(machine), Work)
        assert (work.step, work.blocks) == (lost.step, lost.blocks)


def test_a_worker_that_is_late_is_noticed_once_and_comes_back():
    machine = started()
    work = work_for(machine, "a")

    assert pass_time(machine, 0.0, 9.5) == []
    late = [output for output in pass_time(machine, 9.5, 12.0) if isinstance(output, Member)]
    assert [(event.name, event.change) for event in late] == [("a", "late")]
    assert sent(machine.handle("a", ready("a", work.ticket, 1), 30.0), Work)


def test_an_idle_worker_that_falls_silent_is_let_go_and_told_so_when_it_speaks():
    machine = started()
    apply(machine, 10)
    enter(machine, "w")
    assert machine.handle("w", ready("w"), 0.0) == []

    assert not any(isinstance(output, Member) for output in pass_time(machine, 0.0, 4.9))
    assert Member("w", "lost", "not heard of for 5 s") in machine.tick(5.1)
    assert refused(machine, ready("w")) == "unknown-session"


def test_a_worker_that_prepares_for_minutes_is_not_let_go():
    machine = started()
    enter(machine, "w")
    pass_time(machine, 0.0, 500.0)

    assert sent(machine.handle("w", ready("w"), 500.0), Work)


def test_one_that_says_hello_again_starts_from_scratch():
    machine = started()
    lost = work_for(machine, "a")
    enter(machine, "b")
    machine.handle("b", ready("b"), 0.0)

    outputs = enter(machine, "a") + machine.tick(0.1)

    assert [work.blocks for work in sent(outputs, Work)] == [lost.blocks]
    assert not [output for output in outputs if isinstance(output, Member)]


def test_how_far_a_shard_is_never_goes_back():
    machine = started()
    apply(machine, 3)
    apply(machine, 2)

    assert machine.state(0.0)["version"] == 3
    assert machine.state(0.0)["shards"][0]["version"] == 3


def test_a_milestone_that_was_stepped_over_is_announced_all_the_same():
    machine = started()
    enter(machine, "e", role="evaluator")
    apply(machine, 4)

    assert sent(apply(machine, 6), Milestone) == [Milestone(5, False)]


def test_an_evaluator_that_missed_a_milestone_is_told_again_and_its_figures_count_once():
    machine = started()
    assert sent(enter(machine, "e", role="evaluator"), Milestone) == [Milestone(0, False)]
    apply(machine, 5)

    assert sent(machine.handle("e", Report(session("e"), None, (), 0), 1.0), Milestone) == [Milestone(5, False)]
    figures = Report(session("e"), 5, (("elbo", -1.0),), 0)
    assert machine.handle("e", figures, 2.0) == [Told(5, (("elbo", -1.0),))]
    assert machine.handle("e", figures, 3.0) == []


def test_figures_of_a_version_that_is_not_there_are_not_believed():
    machine = started()
    enter(machine, "e", role="evaluator")
    apply(machine, 5)

    ahead = Report(session("e"), 1 << 62, (("elbo", 1e9),), 0)
    assert machine.handle("e", ahead, 1.0) == [Send("e", Milestone(5, False))]
    figures = Report(session("e"), 5, (("elbo", -1.0),), 0)
    assert machine.handle("e", figures, 2.0) == [Told(5, (("elbo", -1.0),))]


def test_a_run_is_done_when_its_last_snapshot_is_written_and_every_evaluator_has_reported():
    machine = started()
    for name in ("e", "f"):
        enter(machine, name, role="evaluator")
    apply(machine, 10)
    taken = snapshot(machine, 10)
    assert isinstance(taken[0], SnapshotTaken)
    assert machine.ended is None

    machine.finished_writing(10, 0.0)
    machine.handle("e", Report(session("e"), 10, (), 0), 0.0)
    assert machine.ended is None
    outputs = machine.handle("f", Report(session("f"), 10, (), 0), 0.0)

    assert machine.ended == RunEnded(False, "done")
    assert len(sent(outputs, Stop)) == 2


def test_an_evaluator_that_never_reports_does_not_keep_the_run_from_ending():
    machine = started()
    enter(machine, "e", role="evaluator")
    apply(machine, 10)
    snapshot(machine, 10)
    machine.finished_writing(10, 0.0)
    for now in range(0, 130):
        machine.handle("e", Report(session("e"), None, (), 0), float(now)) if machine.ended is None else None
        pass_time(machine, float(now), now + 0.5)

    assert machine.ended == RunEnded(False, "done")


def test_workers_idle_or_computing_evaluators_and_other_shards_are_told_to_stop():
    machine = started(shards=2)
    work_for(machine, "computing")
    enter(machine, "idle")
    machine.handle("idle", ready("idle"), 0.0)
    enter(machine, "eva", role="evaluator")

    outputs = machine.end(True, "why", 0.0)

    told = [output.to for output in outputs if isinstance(output, Send)]
    assert sorted(told, key=str) == sorted(["computing", "idle", "eva", ShardAddress(1)], key=str)
    assert machine.end(False, "again", 0.0) == []
    assert machine.ended == RunEnded(True, "why")


def test_whoever_speaks_after_the_end_is_told_to_stop():
    machine = started(shards=2)
    machine.end(False, "done", 0.0)

    for message in (hello("w"), ready("w"), Report(session("e"), 1, (), 0), Join(PROTOCOL, SERVER, "a", False)):
        assert machine.handle("x", message, 0.0) == [Send("x", Stop(False, "done"))]


def test_a_snapshot_is_taken_once_and_asked_for_again_where_a_part_is_missing():
    machine = started(shards=2)
    work_for(machine, "w")
    apply(machine, 10)
    part = Snapshot(RUN, 0, 10, (), ("m",), (np.zeros(16, np.float32),) * 2)
    assert machine.handle("s", part, 0.0) == []
    machine.tick(0.5)

    asked = machine.tick(2.0)
    assert [output.message for output in asked if output.to == ShardAddress(1)] == [TakeSnapshot(10)]
    taken = machine.handle("s", Snapshot(RUN, 1, 10, (), ("m",), (np.zeros(16, np.float32),) * 2), 0.0)
    assert [type(output) for output in taken] == [SnapshotTaken]
    assert machine.handle("s", part, 0.0) == []


def test_unfinished_snapshots_do_not_pile_up():
    machine = started(shards=2, steps=100, milestone=1)
    for version in range(1, 50):
        machine.handle("s", Snapshot(RUN, 0, version, (), ("m",), (np.zeros(16, np.float32),) * 2), 0.0)

    assert len(machine._ending._parts) <= 5


def test_stop_before_every_shard_is_there_ends_at_once():
    machine = new_coordinator(shards=2)
    machine.stop(0.0)

    assert machine.ended == RunEnded(False, "stopped before every shard was there")


def test_stop_without_workers_ends_with_a_snapshot_of_the_version_that_is_there():
    machine = started(version=3)

    outputs = machine.stop(0.0)

    assert sent(outputs, TakeSnapshot) == [TakeSnapshot(3)]
    snapshot(machine, 3)
    machine.finished_writing(3, 0.1)
    assert machine.ended == RunEnded(False, "stopped")


def test_stop_at_a_version_that_was_just_written_ends_at_once():
    machine = started()
    apply(machine, 5)
    snapshot(machine, 5)
    machine.finished_writing(5, 0.0)

    machine.stop(0.0)

    assert machine.ended == RunEnded(False, "stopped")


def test_a_stopping_run_does_not_wait_for_a_worker_that_died():
    machine = started()
    work_for(machine, "dead")
    machine.stop(0.0)
    now, asked = 0.0, []
    while not asked and now < 100:
        now += 0.1
        asked = sent(machine.tick(now), TakeSnapshot)

    assert asked == [TakeSnapshot(0)]
    assert now < 3.5


def test_a_stopping_run_whose_shards_stay_apart_fails_and_says_what_to_do():
    machine = started(shards=2, consistency="asp")
    work_for(machine, "dead")
    machine.handle("s", applied(machine, 1, 1), 0.0)
    machine.stop(0.0)
    now = 0.0
    while machine.ended is None and now < 100:
        now += 0.1
        machine.handle("s", applied(machine, 1, 1), now)
        machine.tick(now)

    assert machine.ended.failed
    assert "resume from the newest" in machine.ended.reason
    assert now < 16


def test_a_shard_that_falls_silent_ends_the_run():
    machine = started(shards=2)
    pass_time(machine, 0.0, 59.5)
    assert machine.ended is None
    pass_time(machine, 60.0, 60.5)

    assert machine.ended.failed
    assert "shard 2 of 2 at tcp://s1:1 is silent" in machine.ended.reason


def test_a_coordinator_that_stood_still_takes_nobody_for_silent_or_late():
    machine = started(shards=2)
    work_for(machine, "a")
    pass_time(machine, 0.0, 4.5)

    assert pass_time(machine, 64.5, 69.5) == []
    assert machine.ended is None

    assert [output.change for output in pass_time(machine, 70.0, 72.0) if isinstance(output, Member)] == ["late"]
    pass_time(machine, 72.0, 119.5)
    assert machine.ended is None
    pass_time(machine, 120.0, 121.0)
    assert "is silent" in machine.ended.reason


def test_who_is_heard_of_after_a_standstill_is_excused_once():
    machine = started()
    apply(machine, 10)
    enter(machine, "w")
    machine.handle("w", ready("w"), 0.0)
    pass_time(machine, 0.0, 1.0)
    machine.handle("w", ready("w"), 100.0)

    assert not any(isinstance(output, Member) for output in pass_time(machine, 100.0, 104.9))
    assert Member("w", "lost", "not heard of for 5 s") in machine.tick(105.1)


def test_the_state_of_a_crowd_fits_in_a_message():
    machine = started()
    for number in range(500):
        enter(machine, f"w{number}")
    for client in machine.clients.values():
        client.name = "é" * 256

    (state,) = sent(machine.handle("x", Status(), 0.0), State)

    assert len(state.json) <= 60 * 1024
    shown = json.loads(state.json)
    assert shown["worker_count"] == 500
    assert 10 < len(shown["workers"]) < 500


def test_the_state_says_how_it_is_going():
    machine = started(shards=2)
    apply(machine, 1, 0.0)
    apply(machine, 5, 2.0)
    work_for(machine, "w", 2.0)

    state = machine.state(2.0)

    assert {name: state[name] for name in ("version", "steps", "consistency", "phase", "steps_per_second")} == {
        "version": 5,
        "steps": 10,
        "consistency": "bsp",
        "phase": "training",
        "steps_per_second": 2.0,
    }
    assert [worker["state"] for worker in state["workers"]] == ["working"]


def test_the_state_shows_the_leases_how_long_they_last_and_who_is_silent():
    machine = started()
    work_for(machine, "a", now=0.0)
    work_for(machine, "b", now=1.0)
    enter(machine, "c", now=2.0)
    enter(machine, "e", now=2.0, role="evaluator")

    state = machine.state(3.0)

    shown = {one["name"]: (one["step"], one["microbatches"], one["lease_seconds"]) for one in state["workers"]}
    # Of unknown speed, they have 10 s from the moment that the weights are there: of step 1 they are not.
    assert shown == {"a": (0, 2, 7.0), "b": (1, 1, None), "c": (None, 0, None)}
    assert [one["silent_seconds"] for one in state["workers"]] == [3.0, 2.0, 1.0]
    assert state["evaluators"] == [{"name": "e", "version": 0}]

    machine.tick(10.5)

    late = {one["name"]: one for one in machine.state(10.5)["workers"]}["a"]
    assert (late["step"], late["lease_seconds"], late["state"]) == (None, None, "late or starting")
    assert machine.state(10.5)["reissued_blocks"] == 1


def test_a_connection_has_one_session_and_whoever_says_hello_by_it_again_has_left():
    machine = started()
    work_for(machine, "a")

    outputs = machine.handle("a", hello("b"), 0.0)

    assert [client.name for client in machine.clients.values()] == ["b"]
    assert Member("a", "left", "its connection has another session now") in outputs
    assert refused(machine, ready("a")) == "unknown-session"
    assert [work.step for work in sent(machine.handle("a", ready("b"), 0.0), Work)] == [0]


def test_a_session_that_has_moved_to_another_connection_stays_when_its_old_one_gets_a_new_session():
    machine = started()
    enter(machine, "a")
    machine.handle("elsewhere", hello("a"), 0.0)

    machine.handle("a", hello("b"), 0.0)

    assert {client.name for client in machine.clients.values()} == {"a", "b"}


def test_before_the_run_has_begun_a_connection_has_one_session_too():
    machine = new_coordinator()
    for name in ("a", "b", "c"):
        machine.handle("one", hello(name), 0.0)

    apply(machine, 0)

    assert [client.name for client in machine.clients.values()] == ["c"]


def test_who_says_hello_a_thousand_times_with_new_sessions_and_fingerprints_costs_no_memory():
    machine = started()
    told = []
    for number in range(1000):
        outputs = machine.handle("one", hello(f"{number}", fingerprint=f"{number}"), 0.0)
        told += [output for output in outputs if isinstance(output, Member) and output.change == "differs"]
    for number in range(1000):
        machine.handle(f"{number}", hello("same one"), 0.0)

    assert len(machine.clients) == 2
    assert 0 < len(told) < 100
    assert len(repr(plain(machine))) < 100_000


def test_the_place_of_a_server_that_is_gone_before_it_has_its_shard_is_anothers():
    machine = new_coordinator(shards=2)
    first, second = b"one".ljust(16), b"two".ljust(16)
    machine.handle("one", Join(PROTOCOL, first, "tcp://one:1", False), 0.0)
    assert machine.servers == {first: "tcp://one:1"}
    with pytest.raises(PeerError, match="has its 2 shards"):
        machine.handle("two", Join(PROTOCOL, second, "tcp://two:1", False), 1.0)

    assert machine.lost_server(first, 2.0) == []

    (admit,) = machine.handle("two", Join(PROTOCOL, second, "tcp://two:1", False), 3.0)
    assert (admit.message.shard, machine.servers) == (1, {second: "tcp://two:1"})


def test_a_server_that_has_been_admitted_and_does_not_say_so_yet_is_told_of_the_end():
    machine = new_coordinator(shards=2)
    machine.handle("one", Join(PROTOCOL, b"one".ljust(16), "tcp://one:1", False), 0.0)

    ended = machine.end(False, "stopped", 1.0)

    assert Send("one", Stop(False, "stopped")) in ended
