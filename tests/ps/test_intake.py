"""A message is as long as a message may be: one of any number of frames is cut off before it fills the memory."""

import contextlib
import multiprocessing
import signal
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import zmq
from test_locked_doors import Keys
from test_sockets import PATIENCE, VALUE, FirstServer, Program, worker

from ps_vae.ps.client import Outcome
from ps_vae.ps.intake import Intake
from ps_vae.ps.outbox import Refused, RunEnded
from ps_vae.ps.security.door import use_keys

FRAME = 1 << 16
FRAMES = 19
PEER = "a peer at 127.0.0.1"
# What a look lets pass beside the longest message.
SLACK = 1 << 20


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: the peer's and ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        ours, _ = listener.accept()
        with ours:
            ours.settimeout(PATIENCE)
            peer.settimeout(PATIENCE)
            yield peer, ours


def bring(wire: tuple[socket.socket, socket.socket], size: int) -> None:
    """Have so many bytes come over it, all read."""
    peer, ours = wire
    while size:
        sent = min(size, 1 << 16)
        peer.sendall(bytes(sent))
        size -= len(ours.recv(sent, socket.MSG_WAITALL))


def is_open(stream: socket.socket) -> bool:
    stream.setblocking(False)
    try:
        return stream.recv(1) != b""
    except BlockingIOError:
        return True


def test_a_message_of_the_limit_passes_and_a_longer_one_is_cut_at_the_second_look(
    wire: tuple[socket.socket, socket.socket],
) -> None:
    peer, ours = wire
    intake = Intake(1000)
    bring(wire, 1000 + SLACK)
    assert [intake.watch([ours.fileno()], set()) for _ in range(3)] == [[], [], []]

    bring(wire, 10_000)

    assert intake.watch([ours.fileno()], set()) == []
    (cut,) = intake.watch([ours.fileno()], set())
    assert (cut.peer, cut.received) == ("127.0.0.1", 11_000 + SLACK)
    assert not is_open(peer)


def test_however_much_comes_in_messages_nothing_is_cut(wire: tuple[socket.socket, socket.socket]) -> None:
    peer, ours = wire
    intake = Intake(1000)

    for _ in range(5):
        bring(wire, SLACK)
        assert intake.watch([ours.fileno()], {ours.fileno()}) == []

    assert is_open(peer)


def test_what_was_read_late_is_no_reason_to_cut(wire: tuple[socket.socket, socket.socket]) -> None:
    _, ours = wire
    intake = Intake(1000)
    bring(wire, 3 * SLACK)

    assert intake.watch([ours.fileno()], set()) == []
    assert intake.watch([ours.fileno()], {ours.fileno()}) == []
    assert intake.watch([ours.fileno()], set()) == []


def test_another_connection_under_the_same_number_starts_anew(wire: tuple[socket.socket, socket.socket]) -> None:
    _, ours = wire
    intake = Intake(1000)
    bring(wire, SLACK)
    intake.watch([ours.fileno()], set())
    number = ours.fileno()

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        other, _ = listener.accept()
        with other:
            ours.close()
            moved = other.dup()
            try:
                assert moved.fileno() == number
                peer.sendall(bytes(100))
                assert [intake.watch([number], set()) for _ in range(2)] == [[], []]
            finally:
                moved.close()


def test_what_is_no_tcp_connection_or_not_there_any_more_is_passed_over() -> None:
    near, far = socket.socketpair()
    gone = socket.socket()
    number = gone.fileno()
    gone.close()
    with near, far:
        assert Intake(0).watch([near.fileno(), number], set()) == []


def pour(address: str, keys: object) -> None:
    """A message of a gigabyte and more, from a process of its own."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        if keys is not None:
            use_keys(dealer, keys)
        dealer.connect(address)
        frame = zmq.Frame(bytes(FRAME))
        for _ in range(20_000):
            dealer.send(frame, zmq.SNDMORE, copy=False)
        # Not before the message is whole does ZeroMQ begin to send it.
        dealer.send(b"")
        signal.pause()


@contextlib.contextmanager
def pouring(address: str, keys: object) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=pour, args=(address, keys), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("has_keys", [False, True])
def test_a_message_without_an_end_is_cut_off_named_and_harms_nobody(has_keys: bool) -> None:
    keys = Keys() if has_keys else None
    shown = keys.client if keys is not None else None
    own = keys.server if keys is not None else None
    with FirstServer("tcp://127.0.0.1:*", keys=own, steps=1_000_000, frame_limit=FRAME) as server:
        stepped = threading.Semaphore(0)
        one = worker(server.address, Program(stepped.release), keys=shown, transport="tcp")
        assert stepped.acquire(timeout=PATIENCE)
        with pouring(server.address, shown):
            while not (found := [event for event in server.events if isinstance(event, Refused) and event.who == PEER]):
                assert stepped.acquire(timeout=PATIENCE)
            for _ in range(stepped._value + 20):
                assert stepped.acquire(timeout=PATIENCE)
        assert server.ended_when_told() == RunEnded(False, "stopped")
        assert one.outcome() == Outcome(False, "stopped")
    assert found[0].code == "malformed"
    # Before the whole of it had come.
    brought = int(found[0].text.split()[0].replace(",", ""))
    assert FRAMES * FRAME < brought < 20_000 * FRAME
    np.testing.assert_array_equal(server.result, server.shard.version * 4 * VALUE)
