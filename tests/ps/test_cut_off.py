"""A host that nothing reaches any more: connections stay open, and nothing comes by them."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest
from test_sockets import PATIENCE, VALUE, FirstServer, Program, worker

from ps_vae.errors import Unreachable
from ps_vae.ps import sockets
from ps_vae.ps.client import Outcome
from ps_vae.ps.connection import Connection
from ps_vae.ps.outbox import RunEnded
from ps_vae.ps.security.door import new_pair
from ps_vae.ps.security.keys import ClientKeys


class Wire:
    """TCP to `port` for whoever connects to `self.port`; while it is cut nothing passes, and nobody is told."""

    def __init__(self, port):
        self._target = port
        self._flows = threading.Event()
        self._flows.set()
        self._streams = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self):
        self._flows.clear()

    def heal(self):
        """Who has waited in vain is told now that its connection is no more, as by the other host."""
        streams, self._streams = self._streams, []
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        self._flows.set()

    def close(self):
        self._door.close()
        self.heal()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._streams += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source, sink):
        with source, contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                sink.sendall(data)


@pytest.fixture
def short_heartbeats(monkeypatch):
    monkeypatch.setattr(sockets, "_HEARTBEAT_MILLISECONDS", 100)
    monkeypatch.setattr(sockets, "_DEAD_MILLISECONDS", 400)


@contextlib.contextmanager
def wired(**options):
    with FirstServer("tcp://127.0.0.1:*", transport="tcp", steps=1_000_000, **options) as server:
        wire = Wire(int(server.address.rsplit(":", 1)[1]))
        try:
            yield server, wire
        finally:
            wire.close()


def telling(on_compute=lambda: None):
    """A worker's program, and what is set when it says that it waits for a server."""
    waits = threading.Event()
    program = Program(on_compute)
    program.say = lambda text: waits.set() if "waiting for a server" in text else None
    return program, waits


def test_a_worker_that_is_cut_off_says_so_and_gives_up_after_its_timeout(short_heartbeats):
    with wired() as (server, wire):
        computed = threading.Event()
        program, waits = telling(computed.set)
        one = worker(wire.address, program, connect_timeout=1.5, transport="tcp")
        assert computed.wait(PATIENCE)
        since = time.monotonic()
        wire.cut()

        with pytest.raises(Unreachable, match=r"no server answered at .* within 1.5 s"):
            one.outcome()

        assert waits.is_set()
        # Half a second until it is missed, and a second and a half of patience.
        assert 1.5 <= time.monotonic() - since < 10.0
        assert server.ended_when_told().reason == "stopped"


def test_a_worker_that_was_cut_off_goes_on_by_itself_and_nothing_counts_twice(short_heartbeats):
    with wired() as (server, wire):
        steps = threading.Semaphore(0)
        program, waits = telling(steps.release)
        one = worker(wire.address, program, transport="tcp")
        assert steps.acquire(timeout=PATIENCE)
        wire.cut()
        assert waits.wait(PATIENCE)
        while steps.acquire(blocking=False):
            pass

        wire.heal()

        for _ in range(20):
            assert steps.acquire(timeout=PATIENCE)
        assert server.ended_when_told() == RunEnded(False, "stopped")
        assert one.outcome() == Outcome(False, "stopped")
    np.testing.assert_array_equal(server.result, server.shard.version * 4 * VALUE)


def test_the_others_do_the_work_of_one_that_is_cut_off(short_heartbeats):
    with wired() as (server, wire):
        first, second = threading.Event(), threading.Semaphore(0)
        program, waits = telling(first.set)
        lost = worker(wire.address, program, transport="tcp")
        assert first.wait(PATIENCE)
        stays = worker(server.address, Program(second.release), transport="tcp")
        assert second.acquire(timeout=PATIENCE)
        wire.cut()
        assert waits.wait(PATIENCE)
        while second.acquire(blocking=False):
            pass

        for _ in range(20):
            assert second.acquire(timeout=PATIENCE)

        lost.leave()
        assert lost.outcome() == Outcome(False, "told to stop")
        assert server.ended_when_told() == RunEnded(False, "stopped")
        assert stays.outcome() == Outcome(False, "stopped")
    np.testing.assert_array_equal(server.result, server.shard.version * 4 * VALUE)


@pytest.mark.parametrize("has_keys", [False, True])
def test_a_server_that_stands_still_is_not_said_to_refuse_us(has_keys, monkeypatch):
    monkeypatch.setattr(sockets, "_HANDSHAKE_MILLISECONDS", 100)
    keys = ClientKeys(new_pair(), new_pair().public) if has_keys else None
    with contextlib.ExitStack() as stack:
        # The kernel takes connections, and nobody is there who would say anything.
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        door.settimeout(PATIENCE)
        client = Connection(f"tcp://127.0.0.1:{door.getsockname()[1]}", keys=keys)
        stack.callback(client.close, 0.0)
        for _ in range(4):
            stack.enter_context(door.accept()[0])
            client.watch()

        assert client.refusal == ""
        assert isinstance(client.absence(1.0), Unreachable)
