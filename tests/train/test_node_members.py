"""A node's members: what they answer is checked, who says nonsense is ended, and who has ended is replaced or explains.

The processes are real and do nothing; the tests speak for them, through the members' end of the stream.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from small_run import small_config, small_weights

from ps_vae.errors import DataError, NumericalError, PsVaeError, UsageError
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.messages import Welcome
from ps_vae.ps.sharing.segment import Segment
from ps_vae.train import supervisor
from ps_vae.train.node.members import Members
from ps_vae.train.node.messages import MOST_BLOCKS, TO_MEMBER, Done, Failed, Prepared, receive, send
from ps_vae.train.node.program import LeaveError, Node, check_push_codec

SIZE = 6
# Of the first task of two members.
TICKET = 3
PATIENCE = 60.0


class Theatre:
    """Starts processes that only wait, and keeps the streams that they would speak through."""

    def __init__(self, code: str = "import signal; signal.pause()") -> None:
        self.code = code
        self.streams: list[socket.socket] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.players: list[threading.Thread] = []
        self.said: list[str] = []

    def start(self, stream: socket.socket) -> subprocess.Popen[bytes]:
        ours = stream.dup()
        ours.settimeout(PATIENCE)
        self.streams.append(ours)
        self.processes.append(subprocess.Popen([sys.executable, "-I", "-S", "-c", self.code]))
        return self.processes[-1]

    def hear(self, number: int) -> Any:
        with receive(self.streams[number], TO_MEMBER) as (message, _):
            return message

    def prepared(self, number: int, fingerprint: str = "same", size: int = SIZE) -> Segment:
        order = self.hear(number)
        assert order.KIND == "prepare"
        segment = Segment.create(MOST_BLOCKS, size)
        with segment.readable() as descriptor:
            send(self.streams[number], Prepared(order.ticket, fingerprint, "some rows"), descriptor)
        return segment


@pytest.fixture
def theatre(monkeypatch: pytest.MonkeyPatch) -> Iterator[Theatre]:
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE_SECONDS", 0.01)
    made = Theatre()
    yield made
    for stream in made.streams:
        # A player hears the end of its stream, and nobody closes one that another thread still reads.
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)
    for player in made.players:
        player.join(PATIENCE)
        assert not player.is_alive()
    for stream in made.streams:
        stream.close()
    for process in made.processes:
        process.kill()
        process.wait()


def until(members: Members, condition: Callable[[], bool]) -> list[Any]:
    news: list[Any] = []
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        news += members.wait(0.01)
    return news


@pytest.fixture
def pair(theatre: Theatre) -> Iterator[tuple[Members, Theatre]]:
    """Two members, of which the first is ready."""
    members = Members(2, theatre.start, "same", theatre.said.append)
    with_weights = Segment.create(3, SIZE)
    members.prepare(b"{}", None, with_weights)
    theatre.prepared(0)
    until(members, lambda: bool(members.having("idle")))
    yield members, theatre
    members.close()


def done(**changes: Any) -> bytes:
    fields = {"t": "done", "k": TICKET, "ns": 5, "w": [3, 1], "m": [[1.0, 2.0], [3.0, 4.0]]} | changes
    packed: bytes = msgpack.packb(fields)
    return packed


NONSENSE = {
    "no msgpack": b"\xc1nonsense",
    "too long": b"\x80" * 70_000,
    "no map": msgpack.packb([1]),
    "unknown": msgpack.packb({"t": "weights"}),
    "a key too many": done(x=1),
    "another task": done(k=TICKET + 1),
    "a sum too few": done(w=[3]),
    "a sum twice": done(w=[3, 3]),
    "a slot that is not there": done(w=[3, MOST_BLOCKS]),
    "a slot below none": done(w=[3, -1]),
    "metrics too few": done(m=[[1.0, 2.0]]),
    "other metrics": done(m=[[1.0, 2.0], [3.0]]),
    "text for numbers": done(m=[[1.0, 2.0], ["3", 4.0]]),
    "prepared while it computes": msgpack.packb({"t": "prepared", "k": TICKET, "f": "same", "d": ""}),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_member_that_says_nonsense_is_ended_and_replaced(pair: tuple[Members, Theatre], what: str) -> None:
    members, theatre = pair
    (member,) = members.having("idle")
    members.assign(member, 7, 0, [Block(0, 2), Block(2, 3)], now=0.0)
    assert theatre.hear(0).blocks == ((0, 2), (2, 3))

    theatre.streams[0].send(NONSENSE[what])

    assert members.wait(PATIENCE) == [(member, None)]
    assert theatre.processes[0].wait(PATIENCE) == -signal.SIGKILL
    assert f"process {theatre.processes[0].pid} of this node says what makes no sense" in theatre.said[0]
    until(members, lambda: len(theatre.processes) == 3)
    assert member.state == "starting"
    assert theatre.hear(2).KIND == "prepare"


@pytest.mark.parametrize("what", ["no descriptor", "not sealed", "too small"])
def test_memory_that_cannot_be_trusted_is_not_read(pair: tuple[Members, Theatre], what: str) -> None:
    members, theatre = pair
    message = Prepared(theatre.hear(1).ticket, "same", "")
    if what == "no descriptor":
        send(theatre.streams[1], message)
    elif what == "not sealed":
        file = os.memfd_create("test")
        os.ftruncate(file, 4096 * MOST_BLOCKS)
        send(theatre.streams[1], message, file)
        os.close(file)
    else:
        with Segment.create(1, SIZE).readable() as descriptor:
            send(theatre.streams[1], message, descriptor)
    (news,) = members.wait(PATIENCE)
    assert news[1] is None
    assert theatre.processes[1].wait(PATIENCE) == -signal.SIGKILL


def test_sums_are_read_where_the_member_wrote_them(theatre: Theatre) -> None:
    members = Members(1, theatre.start, "same", theatre.said.append)
    members.prepare(b"{}", "here", Segment.create(2, SIZE))
    segment = theatre.prepared(0)
    until(members, lambda: bool(members.having("idle")))
    (member,) = members.having("idle")
    members.assign(member, 0, 0, [Block(0, 1), Block(1, 2)], now=0.0)
    segment.array(3)[:], segment.array(1)[:] = 3.0, 1.0
    theatre.streams[0].send(done(k=member.ticket))
    ((_, answer),) = members.wait(PATIENCE)
    assert isinstance(answer, Done)
    pieces = members.pieces(member, answer)
    np.testing.assert_array_equal([piece.gradient for piece in pieces], [[3.0] * SIZE, [1.0] * SIZE])
    assert [piece.metrics for piece in pieces] == [(1.0, 2.0), (3.0, 4.0)]
    assert members.description == "some rows"
    members.close()


def test_members_that_prepare_for_another_run_are_not_believed_what_they_did_for_the_last(
    pair: tuple[Members, Theatre],
) -> None:
    members, theatre = pair
    (member,) = members.having("idle")
    members.assign(member, 7, 0, [Block(0, 2), Block(2, 3)], now=0.0)
    members.prepare(b"{1}", None, Segment.create(3, SIZE))
    theatre.streams[0].send(done())
    assert theatre.hear(0).KIND == "task"
    theatre.prepared(0)
    assert until(members, lambda: bool(members.having("idle"))) == []


def test_a_member_that_has_prepared_for_the_last_run_only_is_given_nothing(pair: tuple[Members, Theatre]) -> None:
    members, theatre = pair
    members.prepare(b"{1}", None, Segment.create(3, SIZE))
    theatre.prepared(1)
    theatre.prepared(0)
    until(members, lambda: bool(members.having("idle")))
    assert [member.number for member in members.having("idle")] == [0]
    theatre.prepared(1)
    until(members, lambda: len(members.having("idle")) == 2)


def test_the_last_words_of_a_member_are_the_nodes(pair: tuple[Members, Theatre]) -> None:
    members, theatre = pair
    send(theatre.streams[1], Failed(0, "other", "the data are gone"))
    with pytest.raises(PsVaeError, match="the data are gone"):
        members.wait(PATIENCE)


def test_a_member_with_other_arithmetic_ends_the_node(pair: tuple[Members, Theatre]) -> None:
    members, theatre = pair
    theatre.prepared(1, fingerprint="numpy-9")
    with pytest.raises(PsVaeError, match="numpy-9 instead of same"):
        members.wait(PATIENCE)


def test_a_member_that_ends_by_itself_ends_the_node(theatre: Theatre) -> None:
    theatre.code = "raise SystemExit(3)"
    members = Members(1, theatre.start, "same", theatre.said.append)
    theatre.processes[0].wait(PATIENCE)
    theatre.streams[0].close()
    with pytest.raises(PsVaeError, match=f"process {theatre.processes[0].pid}.* exit code 3"):
        members.wait(PATIENCE)
    members.close()


def test_the_words_of_a_member_that_has_ended_are_heard_before_its_end_is_seen(theatre: Theatre) -> None:
    theatre.code = "raise SystemExit(1)"
    members = Members(1, theatre.start, "same", theatre.said.append)
    send(theatre.streams[0], Failed(0, "other", "no such file"))
    theatre.streams[0].close()
    theatre.processes[0].wait(PATIENCE)
    with pytest.raises(PsVaeError, match="no such file"):
        members.wait(0.0)
    members.close()


def welcome() -> Welcome:
    config = small_config()
    size = small_weights(config).size
    return Welcome(
        bytes(16), bytes(16), config.pack(), (("tcp://x:1", 0, size),), config.microbatches, 6, 0, 0, 0, 0, 0
    )


def serve(theatre: Theatre, number: int, answer: Callable[[Any, Segment], Any]) -> threading.Thread:
    """A thread that is a member: `answer` makes what it says to a task, None: nothing."""

    def play() -> None:
        segment = theatre.prepared(number, size=small_weights(small_config()).size)
        while (task := theatre.hear(number)) is not None:
            said = answer(task, segment)
            if said is not None:
                # The node may have hung up meanwhile.
                with contextlib.suppress(BrokenPipeError):
                    send(theatre.streams[number], said)

    thread = threading.Thread(target=play, daemon=True)
    theatre.players.append(thread)
    thread.start()
    return thread


def ones(task: Any, segment: Segment) -> Done:
    """Each microbatch's gradient is 1 all over."""
    for slot, (start, stop) in enumerate(task.blocks):
        segment.array(slot)[:] = stop - start
    metrics = tuple((float(stop - start), 0.5) for start, stop in task.blocks)
    return Done(task.ticket, 1_000_000, tuple(range(len(task.blocks))), metrics)


def node_of(theatre: Theatre, count: int, should_stop: Callable[[], bool] = lambda: False) -> Node:
    return Node(count, theatre.start, "same", data=None, say=theatre.said.append, should_stop=should_stop)


def test_a_node_sums_what_its_members_computed(theatre: Theatre) -> None:
    with node_of(theatre, 2) as node:
        weights = small_weights(small_config())
        threads = [serve(theatre, number, ones) for number in range(2)]
        gradients = Buffers(weights.size)
        node.join(welcome(), gradients)
        for step in range(3):
            (result,) = node.compute(weights, step, [Block(0, 4)])
            np.testing.assert_array_equal(result.gradient, np.full(weights.size, 4.0, np.float32))
            assert result.metrics == (4.0, 1.0)
            gradients.give(result.gradient)
        assert gradients.made == 1
    for thread in threads:
        thread.join(PATIENCE)


@pytest.mark.parametrize(("kind", "error"), [("numerical", NumericalError), ("data", DataError), ("other", PsVaeError)])
def test_what_a_member_cannot_do_the_node_cannot_and_it_goes_on_afterwards(
    theatre: Theatre, kind: str, error: type[Exception]
) -> None:
    def fail_in_step_7(task: Any, segment: Segment) -> Any:
        return Failed(task.ticket, kind, "step 7: nan") if task.step == 7 else ones(task, segment)

    with node_of(theatre, 2) as node:
        weights = small_weights(small_config())
        serve(theatre, 0, ones)
        serve(theatre, 1, fail_in_step_7)
        node.join(welcome(), Buffers(weights.size))
        with pytest.raises(error, match="step 7: nan"):
            node.compute(weights, 7, [Block(0, 4)])
        (result,) = node.compute(weights, 8, [Block(0, 4)])
        assert result.gradient[0] == 4.0


def test_the_part_of_a_member_that_stands_still_is_done_by_others_and_its_late_answer_dropped(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ps_vae.train.node.pace._FIRST_PATIENCE_SECONDS", 0.05)
    weights_seen, wake_up = [], threading.Event()

    def stand_still_once(task: Any, segment: Segment) -> Any:
        weights_seen.append(task.slot)
        if task.step == 0:
            wake_up.wait(PATIENCE)
            segment.array(0)[:] = np.nan
        return ones(task, segment)

    with node_of(theatre, 2) as node:
        weights = small_weights(small_config())
        serve(theatre, 0, stand_still_once)
        others_slots: list[int] = []
        serve(theatre, 1, lambda task, segment: others_slots.append(task.slot) or ones(task, segment))
        gradients = Buffers(weights.size)
        node.join(welcome(), gradients)
        results = [node.compute(weights, step, [Block(0, 4)])[0] for step in range(3)]
        # What the one who stands still computes on is not written over.
        assert set(others_slots[2:]).isdisjoint(weights_seen)
        assert "is silent for" in theatre.said[-1]
        wake_up.set()
        while len(weights_seen) == 1:
            results += node.compute(weights, 3, [Block(0, 4)])
        assert all(np.all(result.gradient == 4.0) for result in results)


def test_the_sum_of_finite_sums_that_is_infinite_is_an_error_as_in_a_single_process(theatre: Theatre) -> None:
    def huge(task: Any, segment: Segment) -> Any:
        answer = ones(task, segment)
        segment.array(0)[3] = 3e38
        return answer

    with node_of(theatre, 2) as node:
        weights = small_weights(small_config())
        for number in range(2):
            serve(theatre, number, huge)
        gradients = Buffers(weights.size)
        node.join(welcome(), gradients)
        for _ in range(2):
            with pytest.raises(NumericalError, match=r"step 2: the gradient is inf in encoder\.0\.weight"):
                node.compute(weights, 2, [Block(0, 4)])
        assert gradients.made == 1


def test_a_node_that_is_told_to_stop_while_nobody_is_ready_leaves(theatre: Theatre) -> None:
    with node_of(theatre, 1, should_stop=lambda: True) as node, pytest.raises(LeaveError):
        node.join(welcome(), Buffers(small_weights(small_config()).size))


def test_a_node_has_no_factors_to_push() -> None:
    with pytest.raises(UsageError, match="--push-codec factors"):
        check_push_codec("factors")
    for codec in ("none", "fp16", "powersgd:2"):
        check_push_codec(codec)
