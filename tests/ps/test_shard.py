"""What a shard counts, answers and refuses."""

import copy
import dataclasses
import functools

import numpy as np
import pytest

from ps_vae.errors import PeerError
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.codecs.codec import Matrix
from ps_vae.ps.codecs.factors import Products, factors
from ps_vae.ps.codecs.table import codec_for
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.identity import ServerIdentity
from ps_vae.ps.messages import Applied, Pull, Push, Snapshot, TakeSnapshot, Weights
from ps_vae.ps.outbox import COORDINATOR, Send, StepApplied
from ps_vae.ps.rules import ASYNCHRONOUS_WINDOW, RunRules
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState

RUN = b"r" * 16
SESSION = b"s" * 16
SIZE = 16


def add_up(weights, parts, state, moment, out):
    state["count"] += 1
    np.add(weights, functools.reduce(np.add, parts), out=out)


def shard(consistency="bsp", *, microbatches=2, steps=50, milestone=10, version=0, look_ahead=None, codec=None):
    rules = RunRules(RUN, microbatches, steps, parse_consistency(consistency), milestone, metrics=1)
    state = ShardState(version, np.zeros(SIZE, np.float32), {"count": np.zeros(SIZE, np.float32)})
    return Shard(1, rules, state, add_up, Buffers(SIZE), look_ahead=look_ahead, codec=codec)


def push(step, start=0, stop=2, *, version=None, value=1.0, then=None, metrics=(1.0,), run=RUN, payload=None):
    gradient = np.full(SIZE, value, np.float32)
    payload = (gradient,) if payload is None else payload
    return Push(run, 1, SESSION, 1, step, start, stop, step if version is None else version, metrics, then, payload)


def do_steps(machine, count):
    for step in range(machine.before, machine.before + count):
        machine.handle("w", push(step), 0.0)


def sent(outputs, kind):
    return [output for output in outputs if isinstance(output, Send) and isinstance(output.message, kind)]


# Of arrays that the decoder takes, also for what it then refuses.
POOL = ("partial_sums", "_decoder")


def contents(machine, *without):
    """Everything a shard knows but its account of refusals, and fields of these names, in a form to be compared."""

    def plain(value):
        if isinstance(value, np.ndarray):
            return value.tolist()
        if dataclasses.is_dataclass(value):
            return [plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
        if isinstance(value, dict):
            return [(plain(key), plain(inner)) for key, inner in value.items()]
        if isinstance(value, list | tuple | set):
            return [plain(inner) for inner in value]
        if type(value).__module__.startswith("ps_vae") and hasattr(value, "__dict__"):
            return plain({name: inner for name, inner in vars(value).items() if name not in left_out})
        return repr(value) if callable(value) else value

    left_out = ("refusals", "_told_at", *without)
    return copy.deepcopy(plain(machine))


def test_a_step_is_applied_when_all_its_microbatches_are_there():
    machine = shard()

    assert machine.handle("a", push(0, 1, 2), 0.0) == []
    outputs = machine.handle("b", push(0, 0, 1), 0.0)

    assert outputs[0] == StepApplied(0, 1, 0, (2.0,))
    assert outputs[1] == Send(COORDINATOR, Applied(RUN, 1, 1, (), 0, 0, 0, 2 * 4 * SIZE, 0, None, None))
    assert machine.weights.tolist() == [2.0] * SIZE


def test_a_resent_push_is_counted_once_and_answered_again():
    machine = shard()
    machine.handle("a", push(0, then=(1, 1)), 0.0)

    outputs = machine.handle("a", push(0, then=(1, 1)), 0.0)

    assert machine.weights.tolist() == [1.0] * SIZE
    assert machine.duplicates == 1
    assert [output.message.version for output in sent(outputs, Weights)] == [1]


REFUSED = {
    "wrong-run": push(3, run=b"x" * 16),
    "bad-block": push(3, 1, 3),
    "bad-step": push(4, version=3),
    "stale": push(3, version=2),
    "stale: a version that does not exist": push(3, version=9),
    "bad-size": push(3, payload=(np.zeros(SIZE + 1, np.float32),)),
    "bad-size: no tensor": push(3, payload=()),
    "bad-size: metrics": push(3, metrics=(1.0, 2.0)),
    "not-finite": push(3, value=np.nan),
    "not-finite: infinity": push(3, value=np.inf),
    "not-finite: metrics": push(3, metrics=(np.nan,)),
    "wrong-run: pull": Pull(b"x" * 16, 1, (0, None), False),
    "not-here": dataclasses.replace(push(3), shard=0),
    "not-here: pull": Pull(RUN, 2, (0, None), False),
    "gone": Pull(RUN, 1, (1, 1), False),
    "gone: snapshot": TakeSnapshot(2),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_message_changes_nothing(case):
    machine = shard()
    do_steps(machine, 3)
    machine.handle("a", push(3, 0, 1), 0.0)
    machine.handle("b", Pull(RUN, 1, (4, 4), False), 0.0)
    before = contents(machine)

    with pytest.raises(PeerError) as refusal:
        machine.handle("b", REFUSED[case], 1.0)

    assert refusal.value.code == case.split(":")[0]
    assert contents(machine) == before


@pytest.mark.parametrize(("number", "metrics"), [(0, (3.0,)), (1, ())])
def test_a_shard_says_with_which_server_it_is_and_the_first_what_the_newest_step_measured(number, metrics):
    rules = RunRules(RUN, 2, 50, parse_consistency("bsp"), 10, metrics=1)
    state = ShardState(0, np.zeros(SIZE, np.float32), {"count": np.zeros(SIZE, np.float32)})
    identity = ServerIdentity(b"server".ljust(16), "tcp://s:1")
    machine = Shard(number, rules, state, add_up, Buffers(SIZE), identity=identity)
    machine.handle("a", dataclasses.replace(push(0, 0, 1, metrics=(1.0,)), shard=number), 0.0)

    outputs = machine.handle("b", dataclasses.replace(push(0, 1, 2, metrics=(2.0,)), shard=number), 0.0)

    assert [(sent.message.session, sent.message.metrics) for sent in sent(outputs, Applied)] == [
        (identity.session, metrics)
    ]


def test_a_push_with_another_number_of_metrics_does_not_stop_the_step():
    machine = shard()
    machine.handle("a", push(0, 0, 1, metrics=(1.0,)), 0.0)

    with pytest.raises(PeerError, match="2 metrics, this run has 1"):
        machine.handle("b", push(0, 1, 2, metrics=(1.0, 2.0)), 0.0)

    assert machine.handle("c", push(0, 1, 2), 0.0)[0] == StepApplied(0, 1, 0, (2.0,))


@pytest.mark.parametrize(("consistency", "last"), [("bsp", 5), ("ssp:3", 8), ("asp", 4 + ASYNCHRONOUS_WINDOW)])
def test_steps_beyond_the_window_are_not_open(consistency, last):
    machine = shard(consistency, steps=100_000)
    do_steps(machine, 5)
    if consistency != "bsp":
        machine.handle("a", push(last, version=5), 0.0)

    with pytest.raises(PeerError, match=f"steps below {last + 1} are"):
        machine.handle("a", push(last + 1, version=5), 0.0)


def test_no_step_of_a_run_is_beyond_its_end():
    machine = shard("asp", steps=3)

    with pytest.raises(PeerError, match="steps below 3 are"):
        machine.handle("a", push(3, version=0), 0.0)


def test_under_ssp_a_gradient_may_be_as_old_as_the_bound_and_no_older():
    machine = shard("ssp:2")
    do_steps(machine, 4)

    with pytest.raises(PeerError) as refusal:
        machine.handle("a", push(4, version=1), 0.0)
    assert refusal.value.code == "stale"
    assert machine.handle("a", push(4, version=2), 0.0)[0] == StepApplied(4, 5, 2, (1.0,))


def test_under_ssp_and_asp_a_block_is_applied_when_it_arrives_and_once():
    for consistency in ("ssp:2", "asp"):
        machine = shard(consistency, microbatches=4)
        machine.handle("a", push(1, 0, 2, version=0, value=10.0), 0.0)
        machine.handle("a", push(1, 0, 2, version=0, value=10.0), 0.0)
        machine.handle("a", push(1, 1, 2, version=0, value=99.0), 0.0)
        machine.handle("a", push(1, 0, 4, version=0, value=99.0), 0.0)  # contains a part that is counted

        assert machine.weights.tolist() == [10.0] * SIZE
        assert (machine.version, machine.duplicates) == (0, 3)


def test_under_asp_whole_steps_beyond_a_gap_are_told_and_the_version_waits_for_the_gap():
    machine = shard("asp")
    machine.handle("a", push(2, version=0), 0.0)
    outputs = machine.handle("a", push(1, version=0), 0.0)

    assert (machine.version, machine.beyond) == (0, {1, 2})
    assert sent(outputs, Applied)[0].message.beyond == (1, 2)
    applied = [output for output in outputs if isinstance(output, StepApplied)]
    assert [(event.step, event.version) for event in applied] == [(1, 2)]
    machine.handle("a", push(0, version=0), 0.0)
    assert (machine.version, machine.beyond) == (3, set())


def test_evaluators_get_the_milestone_itself_and_workers_what_lies_ahead():
    def straight_on(before, weights, updates, out):
        np.add(weights, np.float32(100.0), out=out)

    machine = shard("asp", milestone=1, look_ahead=straight_on, microbatches=2)
    for block in ((0, 1), (1, 2)):
        machine.handle("a", push(0, *block, version=0, value=1.0), 0.0)
    machine.handle("a", push(1, 0, 1, version=1, value=1.0), 0.0)

    (exact,) = sent(machine.handle("e", Pull(RUN, 1, (1, 1), False), 0.0), Weights)
    (newest,) = sent(machine.handle("a", Pull(RUN, 1, (0, None), False), 0.0), Weights)
    assert exact.message.payload[0].tolist() == [2.0] * SIZE
    assert newest.message.payload[0].tolist() == [103.0] * SIZE
    assert machine.weights.tolist() == [3.0] * SIZE


def test_a_pull_of_a_version_to_come_is_answered_when_it_is_published():
    machine = shard()
    assert machine.handle("b", Pull(RUN, 1, (1, 1), False), 0.0) == []

    (answer,) = sent(machine.handle("a", push(0), 0.0), Weights)

    assert (answer.to, answer.message.version) == ("b", 1)
    assert answer.message.payload[0] is machine.weights


def test_a_forgotten_sender_is_not_answered():
    machine = shard()
    machine.handle("b", Pull(RUN, 1, (1, 1), False), 0.0)
    machine.forget("b", 0.0)

    assert sent(machine.handle("a", push(0), 0.0), Weights) == []


def test_the_newest_two_versions_and_the_last_milestone_can_be_pulled():
    machine = shard(milestone=3)
    do_steps(machine, 8)

    def is_there(version):
        try:
            return bool(machine.handle("b", Pull(RUN, 1, (version, version), False), 0.0))
        except PeerError as error:
            return error.code

    assert [is_there(version) for version in range(9)] == ["gone"] * 6 + [True] * 3


def test_a_wish_in_a_push_for_what_is_gone_is_dropped_without_a_word():
    machine = shard(milestone=100)
    do_steps(machine, 5)

    assert machine.handle("a", push(1, then=(2, 2)), 0.0) == []


def test_published_weights_are_not_written_to_while_a_reader_has_them():
    machine = shard(milestone=100)
    (answer,) = machine.handle("b", Pull(RUN, 1, (0, None), False), 0.0)
    weights = answer.message.payload[0]
    machine.buffers.hold(weights, lambda: False)

    do_steps(machine, 20)

    assert weights.tolist() == [0.0] * SIZE


def test_a_snapshot_is_sent_at_every_milestone_and_at_the_end():
    machine = shard(milestone=3, steps=7)
    versions = []
    for step in range(7):
        versions += [s.message.version for s in sent(machine.handle("a", push(step), 0.0), Snapshot)]

    assert versions == [3, 6, 7]


def test_a_snapshot_does_not_change_while_training_goes_on():
    machine = shard(milestone=1)
    (snapshot,) = sent(machine.handle("a", push(0), 0.0), Snapshot)

    do_steps(machine, 10)

    assert snapshot.message.names == ("count",)
    assert [array.tolist() for array in snapshot.message.payload] == [[1.0] * SIZE, [1.0] * SIZE]


def test_a_snapshot_that_is_asked_for_is_sent_now_or_when_its_version_is_there():
    machine = shard(milestone=100)
    do_steps(machine, 2)

    assert sent(machine.handle(COORDINATOR, TakeSnapshot(2), 0.0), Snapshot)[0].message.version == 2
    assert machine.handle(COORDINATOR, TakeSnapshot(3), 0.0) == []
    assert sent(machine.handle("a", push(2), 0.0), Snapshot)[0].message.version == 3


def test_a_shard_says_where_it_is_once_a_second():
    machine = shard()

    assert len(machine.tick(0.0)) == 1
    assert machine.tick(0.9) == []
    assert machine.tick(1.0) == [Send(COORDINATOR, Applied(RUN, 1, 0, (), 0, 0, 0, 0, 0, None, None))]


def encoded(codec, value):
    words = np.zeros(codec.words, np.uint32)
    codec.encode(np.full(SIZE, value, np.float32), codec.initial_state(), (0, 0, 0), words)
    return (words.view(np.float32),)


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_encoded_pushes_are_counted_once_and_their_arrays_are_used_again(consistency):
    codec = codec_for("bf16")(SIZE, ())
    machine = shard(consistency, microbatches=4, codec=lambda microbatches: codec)
    for step in range(3):
        for start in (0, 1, 1, 2, 3):
            machine.handle("w", push(step, start, start + 1, version=step, payload=encoded(codec, 1.5)), 0.0)

    assert machine.duplicates == 3
    np.testing.assert_array_equal(machine.weights, np.full(SIZE, 3 * 4 * 1.5))
    assert machine._open.partial_sums.made <= 4
    free = machine._open.partial_sums._free
    assert len(free) == len({id(array) for array in free}) == machine._open.partial_sums.made


def test_a_payload_that_is_no_encoding_is_refused_and_changes_nothing():
    codec = codec_for("onebit")(SIZE, ())
    machine = shard(codec=lambda microbatches: codec)
    before = contents(machine, *POOL)
    nan = np.full(codec.words, 0x7FC00000, np.uint32).view(np.float32)
    for payload, code in (
        ((nan,), "bad-payload"),
        ((nan[:-1],), "bad-size"),
        ((np.ones(SIZE, np.float32),), "bad-size"),
    ):
        with pytest.raises(PeerError) as refusal:
            machine.handle("w", push(0, payload=payload), 0.0)
        assert refusal.value.code == code

    assert contents(machine, *POOL) == before
    assert (machine._open.partial_sums.made, len(machine._open.partial_sums._free)) == (1, 1)
    machine.handle("w", push(0, payload=encoded(codec, 2.0)), 0.0)
    np.testing.assert_array_equal(machine.weights, np.full(SIZE, 2.0))


def of_products(microbatches):
    """A matrix of 3 rows and 5 columns from element 1 on: factors of a microbatch of one row take 8 numbers."""
    return factors("factors", SIZE, (Matrix(1, 3, 5),), Products(1, outer_product))(microbatches)


def outer_product(a, d, out):
    np.multiply(a.T, d, out=out)


def factored(row, column, alone=0.0):
    return (np.array([alone, *[row] * 3, *[column] * 5], np.float32),)


@pytest.mark.parametrize("consistency", ["bsp", "asp"])
def test_pushes_of_factors_are_multiplied_and_those_of_long_blocks_come_as_they_are(consistency):
    machine = shard(consistency, microbatches=3, codec=of_products)

    machine.handle("a", push(0, 2, 3, payload=factored(2.0, 3.0, 7.0)), 0.0)
    machine.handle("b", push(0, 0, 2), 0.0)

    assert machine.weights.tolist() == [8.0] + [7.0] * 15
    assert machine._open.partial_sums.made == len(machine._open.partial_sums._free) <= 2


@pytest.mark.parametrize(
    ("code", "block", "payload"),
    [
        ("bad-size", (0, 1), (np.ones(SIZE, np.float32),)),
        ("bad-size", (0, 2), factored(1.0, 1.0)),
        ("bad-payload", (0, 1), factored(np.nan, 1.0)),
        ("bad-payload", (0, 1), factored(1.0, -np.inf)),
        ("not-finite", (0, 1), factored(1e30, 1e30)),
    ],
)
def test_factors_that_do_not_fit_the_block_or_are_too_large_are_refused(code, block, payload):
    machine = shard(codec=of_products)
    before = contents(machine, *POOL)

    with np.errstate(over="ignore"), pytest.raises(PeerError) as refusal:
        machine.handle("w", push(0, *block, payload=payload), 0.0)

    assert refusal.value.code == code
    assert contents(machine, *POOL) == before
    assert machine._open.partial_sums.made == len(machine._open.partial_sums._free)
