"""What ZeroMQ does not do by itself: notice peers that are gone, refuse names that are taken, end at once."""

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import zmq
from test_locked_doors import Keys
from test_sockets import PATIENCE, VALUE, FirstServer, Program, answer, worker

from ps_vae.ps import sockets
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.client import Outcome
from ps_vae.ps.clients import Clients
from ps_vae.ps.connection import Connection
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.frames import encode
from ps_vae.ps.messages import Status, Stop
from ps_vae.ps.outbox import RunEnded
from ps_vae.ps.traffic import Traffic

LISTEN = "tcp://127.0.0.1:*"
# ZMTP 3.1 (RFC 37): the greeting of a client without keys, and its READY as a DEALER.
GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL" + bytes(16) + b"\0" + bytes(31)
PROPERTY = b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
READY = b"\x05READY" + PROPERTY
READY = b"\x04" + bytes([len(READY)]) + READY


def ping(seconds: float) -> bytes:
    """A heartbeat, and for how long its sender may be silent."""
    return b"\x04\x07\x04PING" + round(10 * seconds).to_bytes(2, "big")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats in milliseconds where they take seconds."""
    monkeypatch.setattr("ps_vae.ps.sockets._HEARTBEAT_MILLISECONDS", 50)
    monkeypatch.setattr("ps_vae.ps.sockets._DEAD_MILLISECONDS", 300)


def stream_to(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])), PATIENCE)


def read_to_the_end(stream: socket.socket) -> bytes:
    """Everything until the other side closes; a time-out is an error."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while part := stream.recv(1 << 10):
            got += part
    return got


def test_a_peer_that_sends_no_more_of_the_heartbeats_that_it_has_promised_is_disconnected() -> None:
    endpoint = Endpoint(LISTEN, 1 << 16)
    try:
        with stream_to(endpoint.address) as stream:
            stream.sendall(GREETING + READY)
            got = b""
            while b"\x05READY" not in got:
                got += stream.recv(1 << 10)
            stream.sendall(ping(0.3))
            got = read_to_the_end(stream)
    finally:
        endpoint.close()
    assert b"\x04PONG" in got


def test_clients_promise_heartbeats_and_are_answered(hasty: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        connection = Connection(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        try:
            stream, _ = listener.accept()
            with stream:
                stream.settimeout(PATIENCE)
                stream.sendall(GREETING + READY.replace(PROPERTY, PROPERTY.replace(b"DEALER", b"ROUTER")))
                got = b""
                while ping(0.3) not in got:
                    got += stream.recv(1 << 10)
        finally:
            connection.close(0.0)


# It binds a server's socket, and reads nothing until it is told to.
STANDS_STILL = """
import sys, zmq
from ps_vae.ps import sockets
sockets._HEARTBEAT_MILLISECONDS, sockets._DEAD_MILLISECONDS = 50, 300
router = zmq.Context().socket(zmq.ROUTER)
sockets.configure_router(router, 1 << 16)
print(router.bind_to_random_port("tcp://127.0.0.1"), flush=True)
sys.stdin.readline()
count = 0
while router.poll(1000):
    router.recv_multipart()
    count += 1
print(count, flush=True)
"""


def test_a_server_that_stood_still_outlives_a_peer_that_said_much_and_hung_up() -> None:
    messages, beats = 200, 20
    with subprocess.Popen(
        [sys.executable, "-c", STANDS_STILL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            with stream_to(f"tcp://127.0.0.1:{server.stdout.readline().strip()}") as stream:
                stream.sendall(GREETING)
                stream.recv(1 << 10)
                stream.sendall(READY)
                for _ in range(beats):
                    # What an honest client says to a server that does not answer, and its heartbeats.
                    stream.sendall((b"\0\1x" * (messages // beats)) + ping(60.0))
                # The last heartbeat is answered when all before it has been taken.
                got = b""
                while got.count(b"\x04PONG") < beats:
                    got += stream.recv(1 << 10)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Long enough for heartbeats of its own, if it had any.
            with pytest.raises(subprocess.TimeoutExpired):
                server.wait(0.5)
            said, _ = server.communicate("\n", PATIENCE)
        finally:
            server.kill()
    assert (server.returncode, said) == (0, f"{messages}\n")


def test_a_client_notices_a_server_that_answers_no_heartbeat(hasty: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        connection = Connection(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        try:
            stream, _ = listener.accept()
            with stream:
                stream.settimeout(PATIENCE)
                stream.sendall(GREETING + READY.replace(PROPERTY, PROPERTY.replace(b"DEALER", b"ROUTER")))
                assert b"\x04PING" in read_to_the_end(stream)
        finally:
            connection.close(0.0)


@pytest.fixture
def router() -> Iterator[tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes], str]]:
    """A server's socket, and its address."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as bound:
        sockets.configure_router(bound, 1 << 16)
        yield context, bound, f"tcp://127.0.0.1:{bound.bind_to_random_port('tcp://127.0.0.1')}"


def test_what_is_sent_to_a_peer_that_is_gone_is_known_to_be_lost(
    router: tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes], str],
) -> None:
    context, bound, address = router
    clients = Clients(bound, None, Buffers(1), Traffic())
    with context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(address)
        dealer.send(b"x")
        assert bound.poll(1000 * PATIENCE)
        sender, _ = sockets.receive_from(bound)
        assert clients.send(sender, [Stop(False, "")])
        assert answer(dealer) == Stop(False, "")

    end = time.monotonic() + PATIENCE
    while clients.send(sender, [Stop(False, "")]):
        assert time.monotonic() < end, "it seems to be there still"
    assert not clients.send(b"nobody", [Stop(False, "")])


def test_servers_name_their_peers_themselves_and_never_alike(
    router: tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes], str],
) -> None:
    _, bound, address = router
    connections = [Connection(address) for _ in range(3)]
    names = set()
    for connection in connections:
        connection.send([Status()])
    for _ in connections:
        assert bound.poll(1000 * PATIENCE)
        names.add(sockets.receive_from(bound)[0])
    for connection in connections:
        connection.close(0.0)

    # A name that ZeroMQ has drawn has five bytes, the first of them 0; one that a peer gives itself begins otherwise.
    assert [(len(name), name[0]) for name in names] == [(5, 0)] * 3


def test_a_stranger_under_the_name_of_another_gets_none_of_its_messages_and_harms_nobody() -> None:
    with FirstServer(LISTEN, steps=1_000_000) as server, zmq.Context() as context:
        stepped = threading.Semaphore(0)
        one = worker(server.address, Program(stepped.release), transport="tcp")
        with context.socket(zmq.DEALER) as first, context.socket(zmq.DEALER) as second:
            for dealer in (first, second):
                dealer.linger = 0
                dealer.setsockopt(zmq.ROUTING_ID, b"chosen")
                dealer.connect(server.address)
                dealer.send_multipart(encode(Status()))
                if dealer is first:
                    assert answer(first).KIND == "state"
            for _ in range(3):
                first.send_multipart(encode(Status()))
                assert answer(first).KIND == "state"
            assert not second.poll(0)
            for _ in range(20):
                assert stepped.acquire(timeout=PATIENCE)
        assert server.ended_when_told() == RunEnded(False, "stopped")
        assert one.outcome() == Outcome(False, "stopped")
    np.testing.assert_array_equal(server.result, server.shard.version * 4 * VALUE)


@pytest.mark.parametrize("has_keys", [False, True])
def test_an_endpoint_may_be_closed_twice(has_keys: bool) -> None:
    endpoint = Endpoint(LISTEN, 1 << 16, Keys().server if has_keys else None)

    endpoint.close(1.0)
    endpoint.close()

    with pytest.raises(ConnectionRefusedError):
        stream_to(endpoint.address)


def test_what_nobody_takes_holds_nobody_up_at_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # It is never answered: what is sent waits for a handshake.
        connection = Connection(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        connection.send([Status()])
        since = time.monotonic()
        connection.close(0.0)

    # With ZeroMQ's own setting it would wait for ever.
    assert time.monotonic() - since < 5.0
