"""A leader and its follower: the same bits, and nothing published that only one of them has."""

import functools
import itertools

import numpy as np
import pytest

from ps_vae.errors import PeerError
from ps_vae.ps.aggregation.table import aggregation_for
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import Matrix
from ps_vae.ps.codecs.pull import pull_codec_for
from ps_vae.ps.consistency import Consistency, Versions
from ps_vae.ps.follower import Follower
from ps_vae.ps.identity import ServerIdentity
from ps_vae.ps.messages import (
    Applied,
    Copy,
    Error,
    Follow,
    Lead,
    Present,
    Pull,
    Push,
    Replicate,
    Replicated,
    Standby,
    Weights,
    Who,
)
from ps_vae.ps.outbox import COORDINATOR, Send, ShardAddress, StepApplied
from ps_vae.ps.permits import permit
from ps_vae.ps.publication import Want
from ps_vae.ps.rules import RunRules
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState

RUN, SESSION, SECRET, SIZE = b"r" * 16, b"s" * 16, b"k" * 16, 64
LEADER = ServerIdentity(b"leader".ljust(16), "tcp://leader:1")
MICROBATCHES = 3


def momentum(weights, parts, state, moment, out):
    """Depends on everything that a follower has to have: optimizer state and the count of updates."""
    state["speed"] *= np.float32(0.9)
    state["speed"] += functools.reduce(np.add, parts) / np.float32(1 + moment.updates)
    np.add(weights, state["speed"], out=out)


def straight_on(before, weights, updates, out):
    np.add(weights, (weights - before) * np.float32(updates), out=out)


def shard_from(state, *, delay=0, pull="none", aggregate="mean"):
    aggregation = aggregation_for(aggregate)
    secret = b"" if aggregation is None else SECRET
    rules = RunRules(
        RUN, MICROBATCHES, 100, Consistency(0, delay), 10, metrics=1, aggregation=aggregation, secret=secret
    )
    make = pull_codec_for(pull)
    codec = None if make is None else make(SIZE, (Matrix(0, 8, 8),), 5)
    return Shard(2, rules, state, momentum, Buffers(SIZE), look_ahead=straight_on, pull=codec, identity=LEADER)


def leader(**options):
    start = np.random.default_rng(1).standard_normal(SIZE).astype(np.float32)
    return shard_from(ShardState(0, start, {"speed": np.zeros(SIZE, np.float32)}), **options)


def follower(**options):
    names = (b"%16d" % number for number in itertools.count())
    identity = ServerIdentity(SESSION, "tcp://follower:1")
    make = functools.partial(shard_from, **options)
    return Follower(RUN, 2, identity, "tcp://leader:1", 0, SIZE, make, lambda: next(names))


def gradient(step, index):
    return np.random.default_rng([step, index]).standard_normal(SIZE).astype(np.float32)


def push(step, start, stop, *, delay=0):
    total = functools.reduce(np.add, [gradient(step, index) for index in range(start, stop)])
    shown = permit(SECRET, SESSION, 1, step, Block(start, stop))
    return Push(RUN, 2, SESSION, 1, step, start, stop, max(0, step - delay), (1.0,), None, (total,), shown)


def do_step(machine, step, now=0.0, **options):
    blocks = [(0, 2), (2, 3)] if machine.rules.aggregation is None else [(0, 1), (1, 2), (2, 3)]
    return [out for block in blocks for out in machine.handle("w", push(step, *block, **options), now)]


class Pair:
    """Hands messages from one to the other at once; `lose` says which are lost."""

    def __init__(self, lose=lambda message: False, **options):
        self.leader, self.follower = leader(**options), follower(**options)
        self.lose = lose
        self.told = []
        self.applied = []

    def carry(self, outputs, now=0.0):
        """The leader's outputs, and all that they lead to."""
        for output in outputs:
            if isinstance(output, StepApplied):
                self.applied.append(output.step)
            elif output.to == COORDINATOR:
                self.told.append(output.message)
            elif output.to == "f" and not self.lose(output.message):
                self.answer(self.follower.handle(output.message, now), now)

    def answer(self, outputs, now=0.0):
        """The follower's outputs."""
        for output in outputs:
            if output.to == COORDINATOR:
                self.told.append(output.message)
            elif not self.lose(output.message):
                try:
                    self.carry(self.leader.handle("f", output.message, now), now)
                except PeerError as error:
                    self.answer(self.follower.handle(Error(error.code, str(error)), now), now)

    def assert_same_bits(self):
        ours, theirs = self.leader, self.follower.shard
        assert ours.version == theirs.version
        ours, theirs = ours._slice, theirs._slice
        pairs = [(ours.weights, theirs.weights), *((a, theirs.optimizer[n]) for n, a in ours.optimizer.items())]
        pairs += [(array, theirs.published.besides[name]) for name, array in ours.published.besides.items()]
        for one, other in pairs:
            np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


OPTIONS = [
    {},
    {"delay": 1},
    {"pull": "int8"},
    {"pull": "update:int8"},
    {"pull": "update:powersgd:1"},
    {"pull": "update:topk:0.2"},
    {"pull": "update:onebit", "delay": 1},
    {"aggregate": "median"},
    {"aggregate": "trimmed:0.4", "delay": 1, "pull": "int8"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("joins", [0, 1, 5])
def test_a_follower_has_the_bits_of_its_leader_whenever_it_joins(options, joins):
    pair = Pair(**options)
    delay = options.get("delay", 0)
    alone = leader(**options)
    for step in range(12):
        if step == joins:
            pair.answer(pair.follower.tick(0.0))
        pair.carry(do_step(pair.leader, step, delay=delay))
        do_step(alone, step, delay=delay)
        if step >= joins:
            pair.assert_same_bits()

    np.testing.assert_array_equal(pair.leader.weights, alone.weights)
    assert pair.applied == list(range(12))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_follower_that_leads_goes_on_with_the_same_bits(options):
    pair, alone = Pair(**options), leader(**options)
    delay = options.get("delay", 0)
    pair.answer(pair.follower.tick(0.0))
    for step in range(6):
        pair.carry(do_step(pair.leader, step, delay=delay))
    for step in range(12):
        do_step(alone, step, delay=delay)

    assert pair.follower.handle(Lead(RUN, 2, 1, None), 0.0) == []
    heir = pair.follower.shard
    for step in range(6, 12):
        do_step(heir, step, delay=delay)

    np.testing.assert_array_equal(heir.weights, alone.weights)
    wanted = Want(Versions(12 - delay, 12 - delay), held=11 - delay)
    ours, theirs = heir._slice.published.find(wanted), alone._slice.published.find(wanted)
    assert (ours.version, ours.encoded, ours.base) == (theirs.version, theirs.encoded, theirs.base)
    np.testing.assert_array_equal(ours.payload[0].view(np.uint32), theirs.payload[0].view(np.uint32))
    assert heir.tick(1.0)[0].message.incarnation == 1


def in_step():
    """A pair that has reached version 2, and the follower is waited for."""
    pair = Pair()
    pair.answer(pair.follower.tick(0.0))
    for step in range(2):
        pair.carry(do_step(pair.leader, step))
    assert [message.follower for message in pair.told if isinstance(message, Applied)][-1] is not None
    return pair


def asked(machine, version):
    return machine.handle("c", Pull(RUN, 2, (version, version), False), 0.0)


def kinds(outputs):
    return [output.message.KIND for output in outputs if isinstance(output, Send)]


def test_nothing_is_published_that_the_follower_does_not_have():
    pair = in_step()
    assert asked(pair.leader, 3) == []

    assert kinds(do_step(pair.leader, 2)) == ["replicate"]
    assert pair.leader.version == 2
    outputs = pair.leader.handle("f", Replicated(pair.follower._following, 3), 0.0)

    assert pair.leader.version == 3
    assert [output.message.version for output in outputs if kinds([output]) == ["weights"]] == [3]


def test_a_push_of_a_step_that_is_held_back_is_counted_once():
    pair = in_step()
    do_step(pair.leader, 2)
    before = pair.leader.duplicates

    assert pair.leader.handle("w", push(2, 0, 2), 0.0) == []

    assert pair.leader.duplicates == before + 1
    pair.leader.handle("f", Replicated(pair.follower._following, 3), 0.0)
    assert (pair.leader.version, pair.leader._open.sums) == (3, {})


def test_steps_that_become_whole_meanwhile_follow_in_order():
    pair = Pair(delay=1)
    pair.answer(pair.follower.tick(0.0))
    for step in range(2):
        pair.carry(do_step(pair.leader, step, delay=1))
    alone = leader(delay=1)
    for step in range(4):
        do_step(alone, step, delay=1)

    first = do_step(pair.leader, 2, delay=1)
    assert do_step(pair.leader, 3, delay=1) == []
    pair.carry(first)

    assert (pair.leader.version, pair.applied) == (4, [0, 1, 2, 3])
    np.testing.assert_array_equal(pair.leader.weights, alone.weights)
    pair.assert_same_bits()


def test_a_leader_gives_up_a_silent_follower_with_the_coordinators_word_alone():
    pair = in_step()
    following = pair.follower._following
    do_step(pair.leader, 2, now=10.0)

    assert pair.leader.tick(11.0)[0].message.leaving is None
    for now in (12.5, 14.0):
        (told,) = pair.leader.tick(now)
        assert (told.message.follower, told.message.leaving) == (None, following)
        assert pair.leader.version == 2
    assert pair.leader.handle(COORDINATOR, Lead(RUN, 2, 0, b"x" * 16), 15.0) == []
    outputs = pair.leader.handle(COORDINATOR, Lead(RUN, 2, 0, following), 15.0)

    assert StepApplied(2, 3, 0, (2.0,)) in outputs
    assert kinds(do_step(pair.leader, 3)) == ["applied"]


@pytest.mark.parametrize("incarnation", [0, 2])
def test_a_leader_does_not_take_for_its_own_what_is_said_to_another_one_of_the_shard(incarnation):
    pair = in_step()
    pair.follower.handle(Lead(RUN, 2, 1, None), 0.0)
    machine = pair.follower.shard
    (copy,) = machine.handle("g", Follow(RUN, 2, b"g" * 16), 0.0)
    machine.handle("g", Replicated(b"g" * 16, copy.message.version), 0.0)
    do_step(machine, 2)

    assert machine.handle(COORDINATOR, Lead(RUN, 2, incarnation, b"g" * 16), 0.0) == []

    assert (machine.version, machine.incarnation) == (2, 1)
    machine.handle(COORDINATOR, Lead(RUN, 2, 1, b"g" * 16), 0.0)
    assert machine.version == 3


def test_the_time_that_a_follower_took_to_catch_up_is_not_held_against_it():
    pair = Pair(lose=lambda message: isinstance(message, Replicated))
    pair.answer(pair.follower.tick(0.0))
    for step in range(3):
        pair.carry(do_step(pair.leader, step, now=float(step)), float(step))
    assert pair.leader._replication.state == "catching up"
    pair.lose = lambda message: False

    pair.answer(pair.follower.tick(10.0), 10.0)

    assert pair.leader._replication.state == "waited for"
    assert [output.message.leaving for output in pair.leader.tick(10.0)] in ([], [None])
    assert pair.leader._replication.state == "waited for"


def test_a_step_on_its_way_to_who_catches_up_does_not_change_any_more():
    pair = Pair(delay=1)
    (copy,) = pair.leader.handle("f", pair.follower.tick(0.0)[1].message, 0.0)
    outputs = [output for step in range(2) for output in do_step(pair.leader, step, delay=1)]
    sent = [output.message for output in outputs if kinds([output]) == ["replicate"]]

    for step, message in enumerate(sent):
        np.testing.assert_array_equal(
            message.payload[0], np.add(push(step, 0, 2).payload[0], push(step, 2, 3).payload[0])
        )
    assert isinstance(copy.message, Copy)
    assert len(sent) == 2


def test_a_leader_gives_up_a_follower_whose_connection_ends():
    pair = in_step()
    following = pair.follower._following

    (told,) = pair.leader.forget("f", 1.0)

    assert (told.message.follower, told.message.leaving) == (None, following)
    assert kinds(do_step(pair.leader, 2)) == ["replicate"]
    assert pair.leader.version == 2


def test_a_follower_that_was_given_up_follows_anew_under_another_name():
    pair = in_step()
    following = pair.follower._following
    pair.leader.forget("f", 1.0)
    pair.leader.handle(COORDINATOR, Lead(RUN, 2, 0, following), 1.0)
    do_step(pair.leader, 2)

    pair.answer(pair.follower.tick(5.0), 5.0)
    pair.carry(do_step(pair.leader, 3))

    assert pair.follower._following != following
    pair.assert_same_bits()


def test_a_step_that_was_lost_is_sent_again_when_the_follower_says_what_it_has():
    lost = []
    pair = in_step()
    pair.lose = lambda message: isinstance(message, Replicate) and not lost and not lost.append(message)
    pair.carry(do_step(pair.leader, 2))
    assert pair.leader.version == 2

    pair.answer(pair.follower.tick(1.0), 1.0)

    assert pair.leader.version == 3
    pair.assert_same_bits()


def test_a_follower_that_missed_a_step_while_it_caught_up_begins_again():
    lost = []
    pair = Pair(
        lose=lambda message: (
            isinstance(message, Replicated) or (isinstance(message, Replicate) and not lost and not lost.append(1))
        )
    )
    pair.answer(pair.follower.tick(0.0))
    pair.carry(do_step(pair.leader, 0))
    first = pair.follower._following
    pair.carry(do_step(pair.leader, 1))
    assert pair.follower._following != first
    pair.lose = lambda message: False

    pair.answer(pair.follower.tick(2.0), 2.0)
    pair.carry(do_step(pair.leader, 2))

    pair.assert_same_bits()


def test_a_follower_keeps_what_it_has_until_the_next_copy_comes():
    """It may be another server that does not know it, started where its leader was; the leader still waits for it."""
    pair = in_step()
    following = pair.follower._following

    standby, follow = pair.follower.handle(Error("not-following", "who are you?"), 1.0)
    pair.carry(do_step(pair.leader, 2))

    assert follow.message.following != following
    assert standby.message == Standby(RUN, 2, SESSION, following, 0, 2)
    assert pair.leader.version == 3
    pair.assert_same_bits()
    pair.follower.handle(Lead(RUN, 2, 1, None), 2.0)
    assert pair.follower.state == "leading"


def test_what_a_follower_keeps_makes_room_for_the_copy_that_comes():
    pair = in_step()
    first = pair.follower._following
    pair.leader.forget("f", 1.0)
    pair.leader.handle(COORDINATOR, Lead(RUN, 2, 0, first), 1.0)
    for step in range(2, 5):
        do_step(pair.leader, step)

    pair.answer(pair.follower.tick(5.0), 5.0)

    assert pair.told[-1].follower == pair.follower._following != first
    pair.assert_same_bits()


def test_a_snapshot_is_of_one_version_also_while_a_step_is_held_back():
    pair = in_step()
    before = {name: array.copy() for name, array in pair.leader._slice.optimizer.items()}
    do_step(pair.leader, 2)
    assert any(not np.array_equal(before[name], array) for name, array in pair.leader._slice.optimizer.items())

    assert kinds(pair.leader._take_snapshot(3)) == []
    outputs = pair.leader.handle("f", Replicated(pair.follower._following, 3), 0.0)

    (snapshot,) = [output.message for output in outputs if kinds([output]) == ["snapshot"]]
    alone = leader()
    for step in range(3):
        do_step(alone, step)
    assert snapshot.version == 3
    np.testing.assert_array_equal(snapshot.payload[0], alone.weights)
    np.testing.assert_array_equal(snapshot.payload[1], alone._slice.optimizer["speed"])


@pytest.mark.parametrize(
    "broken",
    [
        lambda copy: Copy(copy.following, 2, 2, (1.0,), copy.names[:-1], copy.payload),
        lambda copy: Copy(copy.following, 2, 2, (1.0,), copy.names, (copy.payload[0][1:], *copy.payload[1:])),
        lambda copy: Copy(copy.following, 2, 2, (1.0,), ("weights", "other"), copy.payload),
        lambda copy: Copy(copy.following, 2, 2, (1.0,), ("optimizer/speed", "published/copy"), copy.payload),
        lambda copy: Copy(
            copy.following, 2, 2, (1.0,), (*copy.names, "published/copy"), (*copy.payload, copy.payload[0])
        ),
    ],
)
def test_a_copy_that_is_no_shards_is_refused(broken):
    machine, heir = leader(), follower()
    (send,) = machine.handle("f", heir.tick(0.0)[1].message, 0.0)

    with pytest.raises(PeerError, match=r"numbers|published"):
        heir.handle(broken(send.message), 0.0)
    assert heir.shard is None


def test_a_follower_says_who_it_is_and_asks_until_it_gets_a_copy():
    heir = follower()
    for now in (0.0, 1.0, 2.0):
        standby, follow = heir.tick(now)
        assert standby == Send(COORDINATOR, Standby(RUN, 2, SESSION, None, 0, 0))
        assert follow == Send(ShardAddress(2), Follow(RUN, 2, heir._following))
    assert heir.tick(2.5) == []


@pytest.mark.parametrize("state", ["asking", "following"])
def test_a_follower_that_is_asked_who_it_is_says_whom_it_follows_and_how_far_it_is(state):
    pair = in_step() if state == "following" else Pair()
    assert pair.follower.state == state

    said = pair.follower.handle(Who(RUN), 0.5)

    present = Present(RUN, 2, SESSION, "tcp://follower:1", False, 0, "tcp://leader:1")
    copied = pair.follower._following if state == "following" else None
    assert said[:2] == [
        Send(COORDINATOR, present),
        Send(COORDINATOR, Standby(RUN, 2, SESSION, copied, 0, pair.follower.version)),
    ]
    assert pair.follower.tick(1.4) == []


def test_a_follower_of_another_run_or_one_that_leads_does_not_answer_as_one():
    pair = in_step()
    assert pair.follower.handle(Who(b"x" * 16), 0.5) == []
    pair.follower.handle(Lead(RUN, 2, 1, None), 1.0)

    assert pair.follower.handle(Who(RUN), 1.0) == []


def test_a_leader_that_is_asked_who_it_is_says_so_and_what_it_has_applied():
    machine = leader()
    do_step(machine, 0)
    machine.handle("f", Follow(RUN, 2, b"f" * 16), 0.0)

    present, applied = machine.handle(COORDINATOR, Who(RUN), 0.5)

    assert present == Send(COORDINATOR, Present(RUN, 2, LEADER.session, LEADER.address, True, 0, ""))
    assert (applied.to, applied.message.before, applied.message.session) == (COORDINATOR, 1, LEADER.session)
    with pytest.raises(PeerError) as refusal:
        machine.handle(COORDINATOR, Who(b"x" * 16), 0.5)
    assert refusal.value.code == "wrong-run"


def test_who_has_been_told_to_lead_says_that_it_leads_and_as_which():
    pair = in_step()
    pair.follower.handle(Lead(RUN, 2, 3, None), 1.0)

    present, applied = pair.follower.shard.handle(COORDINATOR, Who(RUN), 1.0)

    assert (present.message.leads, present.message.incarnation, present.message.leader) == (True, 3, "")
    assert (applied.message.incarnation, applied.message.before) == (3, 2)


@pytest.mark.parametrize("message", [Follow(RUN, 1, SESSION), Lead(RUN, 1, 0, None)], ids=lambda message: message.KIND)
def test_what_is_meant_for_another_shard_is_refused(message):
    with pytest.raises(PeerError) as refusal:
        leader().handle("f", message, 0.0)
    assert refusal.value.code == "not-here"


def test_a_follower_without_a_copy_refuses_to_lead():
    with pytest.raises(PeerError, match="no copy"):
        follower().handle(Lead(RUN, 2, 1, None), 0.0)


def test_asynchronous_shards_cannot_be_followed():
    rules = RunRules(RUN, MICROBATCHES, 100, Consistency(None), 10, metrics=1)
    machine = Shard(2, rules, ShardState(0, np.zeros(SIZE, np.float32), {}), momentum, Buffers(SIZE))

    with pytest.raises(PeerError, match="asp"):
        machine.handle("f", Follow(RUN, 2, b"f" * 16), 0.0)


def test_weights_go_to_who_waits_only_when_the_follower_has_them():
    pair = in_step()
    assert asked(pair.leader, 3) == []
    outputs = do_step(pair.leader, 2)

    assert not any(isinstance(output.message, Weights) for output in outputs)
