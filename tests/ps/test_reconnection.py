"""A connection that breaks and is made again, between processes that share memory."""

import contextlib
import os
import socket
import threading
import time

import numpy as np
import pytest
import zmq

from ps_vae.ps import sockets
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.clients import Clients
from ps_vae.ps.connection import Connection
from ps_vae.ps.messages import Bye, Share, Stop, Weights
from ps_vae.ps.sharing.segment import Segment, is_possible
from ps_vae.ps.traffic import Traffic

SIZE = 64
PATIENCE = 20.0

pytestmark = pytest.mark.skipif(not is_possible(), reason="this system has no shared memory")


class Wire:
    """A TCP connection to `port` that can be cut: whoever connects to `self.port` is connected to it, until then."""

    def __init__(self, port):
        self._target = port
        self._ends = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self):
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def close(self):
        self._door.close()
        self.cut()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        with source, contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)


class Pair:
    """The shipped ends of a connection, a server's Clients, on a thread, and a client's Connection."""

    def __init__(self):
        self._context = zmq.Context()
        router = self._context.socket(zmq.ROUTER)
        sockets.configure(router, 1 << 20)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        self.segment = Segment.create(3, SIZE)
        self.weights = Buffers(SIZE, self.segment.arrays())
        self.traffic = Traffic()
        self.clients = Clients(router, self.segment, self.weights, self.traffic)
        self.wire = Wire(port)
        self.client = Connection(f"tcp://127.0.0.1:{self.wire.port}", self._context)
        self._router = router
        self._poller = zmq.Poller()
        self.clients.register(self._poller)
        self.heard = []
        self.lock = threading.Lock()
        self._stop = threading.Event()
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    def close(self):
        self._stop.set()
        self._server.join()
        if self.client is not None:
            self.client_leaves()
        self.clients.close()
        self._router.close(0)
        self.wire.close()
        self._context.term()

    def client_leaves(self):
        self.client.close(0.0)
        self.client = None

    def until(self, condition):
        """What the client gets until the condition holds."""
        got, deadline = [], time.monotonic() + PATIENCE
        while not condition(got):
            assert time.monotonic() < deadline, "it does not happen"
            self.client.watch()
            got += self.client.messages()
            time.sleep(0.001)
        return got

    def wait_for(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it does not happen"
            time.sleep(0.001)

    def said(self, text):
        """By what name the server knows who says so."""
        message = Bye(text.ljust(16).encode())
        self.client.send([message])
        self.until(lambda got: any(known == message for _, known in self.heard))
        return next(sender for sender, known in self.heard if known == message)

    def answered(self, name):
        """Whether weights that are sent to `name` come, and in memory."""
        self.traffic.shared = 0
        array = self.weights.take()
        array[:] = 7
        with self.lock:
            assert self.clients.send(name, [Weights(3, False, None, (array,))])
        self.weights.give(array)
        (weights,) = self.until(lambda got: got)
        np.testing.assert_array_equal(weights.payload[0], np.full(SIZE, 7))
        return self.traffic.shared == 4 * SIZE

    def _serve(self):
        while not self._stop.is_set():
            with self.lock:
                ready = dict(self._poller.poll(1))
                self.clients.watch(ready)
                for sender, messages in self.clients.received(ready):
                    for message in messages:
                        if isinstance(message, Share):
                            self.clients.send(sender, [self.clients.invite(sender)])
                        else:
                            self.heard.append((sender, message))
            time.sleep(0.0001)


@pytest.fixture
def pair():
    pair = Pair()
    yield pair
    pair.close()


def test_after_a_break_the_client_is_answered_by_its_new_name_and_shares_memory_again(pair):
    pair.client.share(None)
    pair.until(lambda got: pair.client.shares)
    before = pair.said("before")
    assert pair.answered(before)

    pair.wire.cut()
    pair.client.shares = None
    pair.until(lambda got: pair.client.shares)
    after = pair.said("after")

    assert after != before
    assert pair.answered(after)
    assert pair.clients._sharings.keys() == {after}


def test_a_name_that_is_no_longer_reached_ends_its_sharing_and_the_client_asks_anew(pair):
    pair.client.share(None)
    pair.until(lambda got: pair.client.shares)
    name = pair.said("before")

    with pair.lock:
        pair.clients.forget(name)
    pair.client.shares = None
    pair.until(lambda got: pair.client.shares)

    assert pair.said("after") == name
    assert pair.answered(name)


def test_breaks_leave_no_descriptors_behind(pair):
    pair.client.share(None)
    pair.until(lambda got: pair.client.shares)
    counts = []
    for number in range(4):
        pair.wire.cut()
        pair.client.shares = None
        pair.until(lambda got: pair.client.shares)
        assert pair.answered(pair.said(f"break {number}"))
        counts.append(len(os.listdir("/proc/self/fd")))

    assert counts[-1] == counts[0]


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_what_a_client_said_last_is_heard_though_the_server_could_not_answer_it_any_more(pair, is_forgotten):
    pair.client.share(None)
    pair.until(lambda got: pair.client.shares)
    name = pair.said("before")
    last = [Bye(text.ljust(16)) for text in (b"one", b"two")]

    with pair.lock:
        pair.clients.send(name, [Stop(False, "")])
        for message in last:
            pair.client.send([message])
        pair.client_leaves()
        if not pair.clients.send(name, [Stop(False, "")]) or is_forgotten:
            pair.clients.forget(name)

    pair.wait_for(lambda: [known for _, known in pair.heard][-2:] == last)
