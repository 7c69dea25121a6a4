"""What is refused is counted and told on; who sends no gradients again and again is put out, and nobody else."""

import json

import numpy as np
import pytest

from ps_vae.errors import PeerError
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.identity import FIRST
from ps_vae.ps.messages import PROTOCOL, Applied, Bye, Error, Hello, Push, Ready, State, Status, Trouble, Work
from ps_vae.ps.outbox import COORDINATOR, Member, RunEnded, Send
from ps_vae.ps.partition import partition
from ps_vae.ps.rules import RunRules
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState

RUN = b"r" * 16
SIZE = 4
MICROBATCHES = 8


def rules(consistency="bsp"):
    return RunRules(RUN, MICROBATCHES, 100, parse_consistency(consistency), 50, metrics=1)


def session(name):
    return name.encode().ljust(16)


def shard(**options):
    state = ShardState(0, np.zeros(SIZE, np.float32), {})
    return Shard(1, rules(), state, lambda *_: None, Buffers(SIZE), **options)


def push(name="w", ticket=1, *, value=1.0, start=0, stop=1, metrics=(1.0,)):
    gradient = np.full(SIZE, value, np.float32)
    return Push(RUN, 1, session(name), ticket, 0, start, stop, 0, metrics, None, (gradient,))


def refuse(machine, message):
    with pytest.raises(PeerError) as refusal:
        machine.handle("x", message, 0.0)
    return refusal.value


def told(machine, now):
    return [output.message for output in machine.tick(now) if isinstance(output, Send) and output.to == COORDINATOR]


def test_a_shard_tells_whose_gradients_it_refused_with_the_next_tick_and_each_piece_of_work_once():
    machine = shard()
    machine.tick(0.0)
    for start in range(3):
        refuse(machine, push("a", 7, value=np.nan, start=start, stop=start + 1))
    refuse(machine, push("b", 8, value=np.inf))
    refuse(machine, push("c", 9, start=1, stop=3))

    (applied,) = told(machine, 0.05)

    assert applied.refused == (("not-finite", 4), ("bad-block", 1))
    assert applied.blamed == ((session("a"), 7, "not-finite"), (session("b"), 8, "not-finite"))
    refuse(machine, push("a", 7, value=np.nan))
    assert told(machine, 0.1) == []
    (applied,) = told(machine, 1.1)
    assert applied.refused == (("not-finite", 5), ("bad-block", 1))


def test_however_many_pieces_of_work_are_blamed_the_account_fits_in_its_message():
    machine = shard()
    for ticket in range(1000):
        refuse(machine, push("a", ticket, value=np.nan))

    (applied,) = told(machine, 0.0)

    assert [ticket for _, ticket, _ in applied.blamed] == list(range(936, 1000))
    assert applied.refused == (("not-finite", 1000),)


def test_a_refused_gradient_is_named_by_what_the_program_calls_its_element():
    error = refuse(shard(name_of="tensor {}".format), push(value=np.nan))

    assert str(error) == "step 0: the gradient is nan at tensor 0 of shard 2"


def coordinator(*names, shards=1, consistency="bsp"):
    """A run with these workers, and their work of step 0."""
    initial = ShardState(0, np.zeros(32, np.float32), {})
    machine = Coordinator(
        rules(consistency), partition(32, shards), "tcp://*:1", b"{}", initial, awaited=max(1, len(names))
    )
    for number in range(1, shards):
        machine.shards[number].session = b"%16d" % number
    apply(machine, 0)
    works = {}
    for name in names:
        machine.handle(name, Hello(PROTOCOL, session(name), "worker", name, "same"), 0.0)
        works |= given(machine.handle(name, Ready(session(name), 0, 0, 0, 0, 0), 0.0))
    return machine, works


def applied(version, *, number=0, refused=(), blamed=()):
    session = b"%16d" % number if number else FIRST.session
    return Applied(RUN, number, version, (), 0, 0, 0, 0, 0, None, None, refused, blamed, session)


def apply(machine, version, **account):
    return [
        output
        for shard in machine.shards
        for output in machine.handle("s", applied(version, number=shard.number, **account), 0.0)
    ]


def blame(machine, name, ticket, *, number=0):
    blamed = ((session(name), ticket, "not-finite"),)
    return machine.handle("s", applied(machine.backlog.lowest, number=number, blamed=blamed), 0.0)


def deliver(machine, name, work):
    return given(machine.handle(name, Ready(session(name), work.ticket, 1_000_000, 0, 0, 0), 0.0))


def given(outputs):
    """Who was given what."""
    return {o.to: o.message for o in outputs if isinstance(o, Send) and isinstance(o.message, Work)}


def members(outputs):
    return [(output.name, output.change) for output in outputs if isinstance(output, Member)]


def test_work_whose_gradient_was_refused_goes_to_another_though_its_worker_says_nothing():
    machine, works = coordinator("a", "b")
    ahead = deliver(machine, "b", works["b"])["b"]
    assert ahead.step == 1

    outputs = blame(machine, "a", works["a"].ticket)

    assert members(outputs) == [("a", "in trouble")]
    assert given(outputs)["b"].blocks == works["a"].blocks
    # It comes for more, and what it failed at is not for it.
    assert deliver(machine, "a", works["a"])["a"].step == 1


def test_a_refusal_told_by_two_shards_and_by_the_worker_counts_once():
    machine, works = coordinator("a", "b", shards=2)
    for number in (0, 1, 0, 1):
        blame(machine, "a", works["a"].ticket, number=number)
    machine.handle("a", Trouble(session("a"), works["a"].ticket, "nan in encoder.0.weight"), 0.0)

    assert machine.clients[session("a")].refused == 1
    assert machine.ended is None


@pytest.mark.parametrize("name", ["b", "nobody"])
def test_a_ticket_that_is_anothers_blames_nobody(name):
    machine, works = coordinator("a", "b")

    outputs = blame(machine, name, works["a"].ticket)

    assert members(outputs) == []
    assert [client.refused for client in machine.clients.values()] == [0, 0]


def fail(machine, works, faulty, pieces):
    """So many pieces of work that `faulty` fails at, one a step, and that others do; everything that came out."""
    everything = []

    def note(outputs):
        everything.extend(outputs)
        works.update(given(outputs))

    while pieces:
        step = machine.backlog.lowest
        if works[faulty].step == step:
            pieces -= 1
            bad = works.pop(faulty)
            note(blame(machine, faulty, bad.ticket))
            note(machine.handle(faulty, Ready(session(faulty), bad.ticket, 1_000_000, 0, 0, 0), 0.0))
        while due := [name for name, work in works.items() if name != faulty and work.step == step]:
            work = works.pop(due[0])
            note(machine.handle(due[0], Ready(session(due[0]), work.ticket, 1_000_000, 0, 0, 0), 0.0))
        note(apply(machine, step + 1))
    return everything


def test_the_third_piece_of_work_in_a_row_that_others_had_to_do_puts_a_worker_out():
    machine, works = coordinator("a", "b", "c")

    assert ("a", "put out") not in members(fail(machine, works, "a", 2))
    outputs = fail(machine, works, "a", 1)

    assert ("a", "put out") in members(outputs)
    (error,) = [o.message for o in outputs if isinstance(o, Send) and isinstance(o.message, Error)]
    assert error.code == "put-out"
    assert "a is put out: 3 pieces of its work in a row could not be used" in error.text
    assert {client.name for client in machine.clients.values()} == {"b", "c"}
    assert machine.ended is None


def test_a_session_that_was_put_out_does_not_come_back_and_another_does():
    machine, works = coordinator("a", "b", "c")
    fail(machine, works, "a", 3)

    for message in (
        Hello(PROTOCOL, session("a"), "worker", "a", "same"),
        Ready(session("a"), 0, 0, 0, 0, 0),
        Trouble(session("a"), 1, "nan"),
        Bye(session("a")),
    ):
        assert refuse(machine, message).code == "put-out"
    assert machine.handle("a", Hello(PROTOCOL, session("new"), "worker", "a", "same"), 0.0)


def test_work_of_its_own_in_between_wipes_out_what_others_did_for_a_worker():
    machine, works = coordinator("a", "b", "c")
    fail(machine, works, "a", 2)
    step = works["a"].step
    while machine.backlog.lowest <= step:
        for name in [name for name, work in works.items() if work.step == machine.backlog.lowest]:
            works |= deliver(machine, name, works.pop(name))
        works |= given(apply(machine, machine.backlog.lowest + 1))

    assert ("a", "put out") not in members(fail(machine, works, "a", 2))
    assert ("a", "put out") in members(fail(machine, works, "a", 1))


def test_a_worker_that_is_alone_is_tried_twice_and_then_the_run_fails_with_its_reason():
    machine, works = coordinator("a")
    again = given(blame(machine, "a", works["a"].ticket)) or deliver(machine, "a", works["a"])
    assert again["a"].step == 0

    blame(machine, "a", again["a"].ticket)

    assert machine.ended == RunEnded(True, "a: shard 1 refused its gradient: not-finite")


@pytest.mark.parametrize(("faulty", "others", "fails"), [(1, 2, False), (2, 2, False), (2, 3, False), (3, 2, True)])
def test_a_run_fails_where_more_than_half_of_its_workers_fail_at_a_step(faulty, others, fails):
    names = [f"w{number}" for number in range(faulty + others)]
    machine, works = coordinator(*names)

    for name in names[:faulty]:
        if name in works:
            blame(machine, name, works[name].ticket)

    assert (machine.ended is not None) == fails


def test_the_state_has_refusals_by_kind_and_by_worker():
    machine, works = coordinator("a", "b", shards=2)
    blame(machine, "a", works["a"].ticket)
    machine.handle("s", applied(0, number=0, refused=(("not-finite", 2), ("gone", 1))), 0.0)
    machine.handle("s", applied(0, number=1, refused=(("not-finite", 5),)), 0.0)

    (answer,) = machine.handle("x", Status(), 0.0)

    assert isinstance(answer.message, State)
    state = json.loads(answer.message.json)
    assert state["refused"] == {"not-finite": 7, "gone": 1}
    assert {worker["name"]: worker["refused"] for worker in state["workers"]} == {"a": 1, "b": 0}
