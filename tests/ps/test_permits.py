"""In runs with an aggregation a worker can push what the coordinator gave it, and nothing else."""

import dataclasses
import struct

import numpy as np
import pytest
from blake2b import blake2b
from hypothesis import given
from hypothesis import strategies as st

from ps_vae.errors import PeerError, RefusedError
from ps_vae.ps.actions import Compute, Result, Spent
from ps_vae.ps.aggregation.table import aggregation_for
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.consistency import Consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.frames import encode
from ps_vae.ps.gathering import Found
from ps_vae.ps.identity import FIRST
from ps_vae.ps.members import ShardMember
from ps_vae.ps.messages import PROTOCOL, Admit, Applied, Hello, Join, Push, Ready, Weights, Welcome, Work
from ps_vae.ps.outbox import Send
from ps_vae.ps.partition import partition
from ps_vae.ps.permits import is_permitted, permit
from ps_vae.ps.rules import RunRules
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState
from ps_vae.ps.worker import Worker

RUN, SECRET, SIZE, MICROBATCHES = b"r" * 16, b"a secret of tests"[:16], 32, 4


def session(name):
    return name.encode().ljust(16)


def rules(aggregate="median", secret=SECRET):
    aggregation = aggregation_for(aggregate)
    return RunRules(RUN, MICROBATCHES, 50, Consistency(0), 50, metrics=1, aggregation=aggregation, secret=secret)


def push(name="ann", ticket=3, step=0, start=1, *, stop=None, value=1.0, shown=None):
    gradient, stop = np.full(SIZE, value, np.float32), start + 1 if stop is None else stop
    return Push(RUN, 0, session(name), ticket, step, start, stop, step, (1.0,), None, (gradient,), shown)


def permitted(message, secret=SECRET):
    """With what the specification says its permit is."""
    words = struct.pack("<16sQQII", message.session, message.ticket, message.step, message.start, message.stop)
    return dataclasses.replace(message, permit=blake2b(words, secret, 16))


def shard(**options):
    def update(weights, parts, state, moment, out):
        np.add(weights, parts[0], out=out)

    return Shard(0, rules(**options), ShardState(0, np.zeros(SIZE, np.float32), {}), update, Buffers(SIZE))


def refusal(machine, message):
    with pytest.raises(PeerError) as found:
        machine.handle("w", message, 0.0)
    return found.value.code


def sent(outputs, kind):
    return [output.message for output in outputs if isinstance(output, Send) and isinstance(output.message, kind)]


# What a permit says


OTHERS = {
    "session": {"session": session("bob")},
    "ticket": {"ticket": 4},
    "step": {"step": 1},
    "block": {"start": 2, "stop": 3},
    "end": {"stop": 3},
    "beginning": {"start": 0},
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_a_permit_of_another_session_ticket_step_or_block_is_none(change):
    message = permitted(push())

    assert is_permitted(SECRET, message)
    assert not is_permitted(SECRET, dataclasses.replace(message, **change))


def test_a_permit_of_another_run_is_none():
    assert not is_permitted(SECRET, permitted(push(), b"another secret, "))


numbers = st.integers(0, 2**63 - 1)
ends = st.integers(0, 2**20 - 1)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), numbers, numbers, ends, ends)
def test_a_permit_is_the_keyed_digest_that_is_specified(secret, name, ticket, step, start, stop):
    expected = blake2b(struct.pack("<16sQQII", name, ticket, step, start, stop), secret, 16)

    assert permit(secret, name, ticket, step, Block(start, stop)) == expected


@given(st.integers(0, 16 * 8 - 1))
def test_any_bit_that_is_changed_makes_a_permit_none(bit):
    message = permitted(push())
    changed = bytearray(message.permit)
    changed[bit // 8] ^= 1 << bit % 8

    assert not is_permitted(SECRET, dataclasses.replace(message, permit=bytes(changed)))


@pytest.mark.parametrize("shown", [None, b"", bytes(16), SECRET])
def test_none_is_no_permit_and_neither_is_what_anybody_could_make_up(shown):
    message = permitted(push())
    unkeyed = permitted(push(), b"")

    assert not is_permitted(SECRET, dataclasses.replace(message, permit=shown))
    assert not is_permitted(SECRET, unkeyed)


# What a run with permits is


@pytest.mark.parametrize(
    ("aggregate", "secret"), [("median", b""), ("median", b"short"), ("median", b"s" * 17), ("mean", SECRET)]
)
def test_there_is_a_secret_where_there_is_an_aggregation_and_only_there(aggregate, secret):
    with pytest.raises(ValueError, match=f"a secret of {len(secret)} bytes"):
        rules(aggregate, secret)


def test_what_is_written_to_logs_has_no_secret_in_it():
    admit = Admit(RUN, b"{}", 0, 0, 32, 4, 50, 0, 0, 50, 0, "", 0, 0, (), (), SECRET)

    assert "secret" not in repr(rules())
    assert "secret" not in repr(admit)


# A shard


def test_a_shard_counts_what_was_given_and_the_first_push_of_a_stranger_takes_nobodys_place():
    machine = shard()
    for start in range(MICROBATCHES):
        lie = push("eve", 9, start=start, value=-1e6)
        own = permitted(push("eve", 9, start=7 % MICROBATCHES)).permit
        for shown in (None, bytes(16), own if start != 3 else None, permitted(push(start=start)).permit):
            assert refusal(machine, dataclasses.replace(lie, permit=shown)) == "not-yours"
    assert machine.version == 0

    for start in range(MICROBATCHES):
        machine.handle("w", permitted(push("ann", 3, start=start, value=2.0)), 0.0)

    assert machine.version == 1
    np.testing.assert_array_equal(machine.weights, np.full(SIZE, 2.0 * MICROBATCHES, np.float32))
    assert dict(machine.refusals.counts) == {"not-yours": 4 * MICROBATCHES}


def test_a_push_in_anothers_name_blames_nobody():
    machine = shard()
    unusable = [push(value=np.nan), dataclasses.replace(push(), payload=(np.zeros(3, np.float32),))]

    for message in unusable:
        assert refusal(machine, dataclasses.replace(message, permit=bytes(16))) == "not-yours"
    assert machine.refusals.blamed == ()

    assert [refusal(machine, permitted(message)) for message in unusable] == ["not-finite", "bad-size"]
    assert [code for _, _, code in machine.refusals.blamed] == ["not-finite"]


def test_a_permit_does_not_make_a_sum_a_microbatch():
    assert refusal(shard(), permitted(push(start=0, stop=2))) == "bad-block"


def test_a_push_that_is_not_permitted_is_answered_with_no_weights():
    machine = shard()
    wants = dataclasses.replace(push(), then=(0, 0))

    assert refusal(machine, wants) == "not-yours"
    (weights,) = sent(machine.handle("w", permitted(wants), 0.0), Weights)
    assert weights.version == 0


# The coordinator


def coordinator(aggregate="median", *, shards=1, found=None, **options):
    secret = SECRET if aggregate != "mean" else b""
    initial = ShardState(0, np.zeros(SIZE, np.float32), {})
    words = (rules(aggregate, secret), partition(SIZE, shards), "tcp://*:1", b"{}", initial)
    machine = Coordinator(*words, found=found, **options)
    if shards == 1 and found is None:
        apply(machine, 0)
    return machine


def apply(machine, version, now=0.0):
    name = machine.shards[0].session or FIRST.session
    return machine.handle("s", Applied(RUN, 0, version, (), 0, 0, 0, 0, 0, None, None, session=name), now)


def ready(name, ticket=0, nanoseconds=0):
    return Ready(session(name), ticket, nanoseconds, 0, 0, 0)


def works(outputs, name):
    return [o.message for o in outputs if isinstance(o, Send) and o.to == name and isinstance(o.message, Work)]


def enter(machine, *names):
    for name in names:
        machine.handle(name, Hello(PROTOCOL, session(name), "worker", name, "same"), 0.0)


def pushes_of(work, name):
    """What its worker pushes, one by one."""
    return [
        push(name, work.ticket, work.step, start, stop=stop, shown=shown)
        for (start, stop), shown in zip(work.blocks, work.permits, strict=True)
    ]


def test_each_block_of_a_work_has_its_permit_and_repeated_work_has_the_same():
    machine = coordinator(awaited=2)
    enter(machine, "ann", "bob")
    machine.handle("ann", ready("ann"), 0.0)
    outputs = machine.handle("bob", ready("bob"), 0.0)

    for name in ("ann", "bob"):
        (work,) = works(outputs, name)
        assert len(work.blocks) == MICROBATCHES // 2
        assert all(message == permitted(message) for message in pushes_of(work, name))
        assert works(machine.handle(name, ready(name), 0.1), name) == [work]


def test_work_that_is_given_out_again_has_permits_for_whom_it_is_given_to():
    machine = coordinator(awaited=2)
    enter(machine, "ann", "bob")
    machine.handle("ann", ready("ann"), 0.0)
    (before,) = works(machine.handle("bob", ready("bob"), 0.0), "ann")
    machine.handle("bob", ready("bob", 2, 1000), 0.1)

    outputs = machine.forget("ann", 0.2)

    (again,) = works(outputs, "bob")
    assert again.blocks == before.blocks
    assert all(message == permitted(message) for message in pushes_of(again, "bob"))
    assert set(again.permits).isdisjoint(before.permits)


def test_a_backup_has_permits_of_its_own():
    machine = coordinator(awaited=2, backup_workers=1)
    enter(machine, "ann", "bob")
    machine.handle("ann", ready("ann"), 0.0)
    given = machine.handle("bob", ready("bob"), 0.0)
    for step in range(3):
        tickets = {name: works(given, name)[-1].ticket for name in ("ann", "bob")}
        given = [
            out
            for name, ticket in tickets.items()
            for out in machine.handle(name, ready(name, ticket, 1_000_000), 0.1 * step + 0.05)
        ]
        apply(machine, step + 1, 0.1 * step + 0.06)
    (late,) = works(given, "ann")
    ticket = works(given, "bob")[-1].ticket
    outputs = machine.handle("bob", ready("bob", ticket, 1_000_000), 0.3)
    outputs += machine.tick(0.4)

    (backup,) = [work for work in works(outputs, "bob") if work.step == late.step]

    assert backup.blocks == late.blocks
    assert all(message == permitted(message) for message in pushes_of(backup, "bob"))


def test_a_run_without_an_aggregation_has_no_permits_and_its_work_is_not_longer():
    machine = coordinator("mean")
    enter(machine, "ann")

    (work,) = works(machine.handle("ann", ready("ann"), 0.0), "ann")

    assert work.permits == ()
    assert b"\xa2pm" not in bytes(encode(work)[0])
    assert b"\xa2pm" not in bytes(encode(push())[0])


@pytest.mark.parametrize(("aggregate", "secret"), [("median", SECRET), ("mean", b"")])
def test_a_server_that_is_admitted_is_told_the_secret_and_a_worker_never(aggregate, secret):
    machine = coordinator(aggregate, shards=2)
    leader = machine.handle("t", Join(PROTOCOL, session("server"), "tcp://t:1", False), 0.0)
    for number, name in enumerate((FIRST.session, session("server"))):
        machine.handle("s", Applied(RUN, number, 0, (), 0, 0, 0, 0, 0, None, None, session=name), 0.0)
    follower = machine.handle("u", Join(PROTOCOL, session("heir"), "tcp://u:1", True), 0.0)
    worker = machine.handle("w", Hello(PROTOCOL, session("w"), "worker", "w", "same"), 0.0)

    assert [admit.secret for admit in sent(leader + follower, Admit)] == [secret, secret]
    assert sent(worker, Welcome)
    assert SECRET not in b"".join(bytes(frame) for welcome in sent(worker, Welcome) for frame in encode(welcome))
    assert SECRET.hex() not in repr(machine.state(0.0))


def test_permits_from_before_a_coordinator_was_started_again_are_good_after_it():
    """Pushes that were under way count, and so do those of its own work."""
    before = coordinator()
    enter(before, "ann")
    (old,) = works(before.handle("ann", ready("ann"), 0.0), "ann")
    member = ShardMember(0, partition(SIZE, 1)[0], "tcp://zero:1", session("zero"), heard=0.0, before=0)
    early = {session("ann"): ("ann", Hello(PROTOCOL, session("ann"), "worker", "ann", "same"))}
    after = coordinator(found=Found((member,), early), tickets=1 << 32)
    after.begin(0.0)
    (new,) = works(after.handle("ann", ready("ann"), 0.0), "ann")
    machine = shard()

    for message in pushes_of(old, "ann")[:2] + pushes_of(new, "ann")[2:]:
        machine.handle("ann", message, 0.0)

    assert new.ticket > 1 << 32
    assert machine.version == 1


# A worker


def working(work):
    worker = Worker(session("ann"), "ann", "f")
    worker.start(0.0)
    shards = (("a", 0, 16), ("b", 16, 32))
    worker.handle(None, Welcome(session("ann"), RUN, b"{}", shards, 8, 100, 0, 0, 0, 0, 0), 0.0)
    worker.prepared(0.0)
    worker.handle(None, work, 0.0)
    for number in range(2):
        actions = worker.handle(number, Weights(0, False, None, (np.zeros(16, np.float32),)), 0.0)
    return worker, [action for action in actions if isinstance(action, Compute)]


@pytest.mark.parametrize("order", [1, -1])
def test_each_push_of_a_worker_carries_the_permit_of_its_block_in_whatever_order_they_were_computed(order):
    indices = (5, 0, 3)
    shown = {index: bytes([index]) * 16 for index in indices}
    blocks = tuple((index, index + 1) for index in indices)
    worker, (compute,) = working(Work(3, 0, blocks, tuple(shown.values())))
    results = [Result(block, np.zeros(32, np.float32), (1.0,)) for block in compute.blocks][::order]

    pushes = sent(worker.computed(results, Spent(1), 0.0), Push)

    assert len(pushes) == 2 * len(indices)
    assert all(message.permit == shown[message.start] for message in pushes)


def test_work_whose_permits_are_not_as_many_as_its_blocks_is_refused_by_us():
    with pytest.raises(RefusedError, match="2 blocks came with 1 permits"):
        working(Work(3, 0, ((0, 1), (1, 2)), (bytes(16),)))
