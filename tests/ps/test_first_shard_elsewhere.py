"""Real sockets: clients of a coordinator whose server has no shard, and the shards that it finds again."""

import functools
import threading
import time

import numpy as np
import pytest
import zmq

from ps_vae.ps.actions import Result
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.client import Outcome, work
from ps_vae.ps.connection import Connection
from ps_vae.ps.consistency import Consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.frames import decode, encode
from ps_vae.ps.gathering import Gathering
from ps_vae.ps.identity import ServerIdentity
from ps_vae.ps.links import Links
from ps_vae.ps.messages import TO_CLIENT, TO_SERVER, Error, Pull, Push, Status, Weights, Work
from ps_vae.ps.outbox import COORDINATOR, Refused, RunEnded, Send, ShardAddress, SnapshotTaken, StepApplied
from ps_vae.ps.partition import partition
from ps_vae.ps.rules import RunRules
from ps_vae.ps.server import Server
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState

RUN, SIZE, STEPS = b"r" * 16, 64, 20
VALUE = np.arange(SIZE, dtype=np.float32)
PATIENCE = 30.0
LISTEN = "tcp://127.0.0.1:*"


class Stub:
    """A server that says what it is told to, to whoever spoke last."""

    def __init__(self, context):
        self._router = context.socket(zmq.ROUTER)
        self._router.linger = 0
        port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"
        self._peer = b""

    def heard(self):
        """The next message."""
        assert self._router.poll(1000 * PATIENCE), "nothing comes"
        self._peer, *frames = self._router.recv_multipart()
        return decode(frames, TO_SERVER)

    def say(self, message):
        self._router.send_multipart([self._peer, *encode(message)])

    def close(self):
        self._router.close()


@pytest.fixture
def stubs():
    """The coordinator's server and another one."""
    with zmq.Context() as context:
        pair = [Stub(context) for _ in range(2)]
        yield pair
        for stub in pair:
            stub.close()


@pytest.fixture
def links(stubs):
    links = Links(stubs[0].address, lambda text: None, PATIENCE)
    yield links
    links.close()


def weights(version):
    return Weights(version, False, None, (VALUE,))


def come(links, count):
    """The next so many messages, as whose and of which kind."""
    got = []
    while len(got) < count:
        links.wait()
        got += [(shard, message.KIND) for shard, message in links.messages()]
    return got


def pull(shard):
    return Send(ShardAddress(shard), Pull(RUN, shard, (0, None), False))


def test_what_is_for_the_first_shard_goes_to_where_it_is(stubs, links):
    coordinator, server = stubs
    links.open_shards([server.address])

    links.send([pull(0), Send(COORDINATOR, Status())])

    assert coordinator.heard() == Status()
    assert server.heard() == pull(0).message
    server.say(weights(3))
    assert come(links, 1) == [(0, "weights")]
    server.say(Error("gone", "too late"))
    assert come(links, 1) == [(0, "error")]
    coordinator.say(Work(1, 3, ((0, 1),)))
    coordinator.say(Error("unknown-session", "who are you?"))
    assert come(links, 2) == [(None, "work"), (None, "error")]


def test_an_empty_address_is_the_coordinators_server_whatever_shard_that_has(stubs, links):
    coordinator, server = stubs
    links.open_shards([server.address, ""])

    links.send([pull(0), pull(1)])

    assert server.heard() == pull(0).message
    assert coordinator.heard() == pull(1).message
    server.say(weights(3))
    assert come(links, 1) == [(0, "weights")]
    coordinator.say(weights(3))
    coordinator.say(Error("gone", "too late"))
    assert come(links, 2) == [(1, "weights"), (None, "error")]


def test_the_first_shard_moves_away_from_the_coordinators_server_and_back(stubs, links):
    coordinator, server = stubs
    links.open_shards([""])
    for addresses, there, other in (([server.address], server, coordinator), ([""], coordinator, server)):
        links.move_shards(addresses)
        links.send([pull(0)])
        assert there.heard() == pull(0).message
        there.say(weights(3))
        assert come(links, 1) == [(0, "weights")]
        assert not other._router.poll(0)


class Program:
    """A worker's program: each microbatch's gradient is VALUE. `prepared` counts the runs that it prepared for."""

    def __init__(self):
        self.prepared = 0
        self.waits = threading.Event()

    def codecs(self, welcome):
        return [], 0

    def pull_codecs(self, welcome):
        return []

    def join(self, welcome, gradients):
        self.prepared += 1
        self._buffers = gradients

    def compute(self, weights, step, blocks):
        np.testing.assert_array_equal(weights, step * 2 * VALUE)
        results = []
        for block in blocks:
            gradient = self._buffers.take()
            np.multiply(VALUE, len(block), out=gradient)
            results.append(Result(block, gradient, (float(len(block)),)))
        return results

    def say(self, text):
        if "started again" in str(text):
            self.waits.set()


class OnThread:
    """Runs something; `result` waits for what it returns."""

    def __init__(self, call):
        self._outcome = None

        def run():
            try:
                self._outcome = call()
            except Exception as error:
                self._outcome = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def result(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it does not end"
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def rules():
    return RunRules(RUN, 2, STEPS, Consistency(0), STEPS, metrics=1)


def add_up(weights, parts, state, moment, out):
    np.add(weights, functools.reduce(np.add, parts), out=out)


def shard_server(coordinator, number, version, is_ahead):
    """A server that has a shard at some version, or at the next, and was connected to a coordinator at this address."""
    piece = partition(SIZE, 2)[number]
    endpoint = Endpoint(LISTEN, 1 << 20)
    state = ShardState(version, version * 2 * VALUE[piece.start : piece.stop], {})
    identity = ServerIdentity(b"%16d" % number, endpoint.address)
    shard = Shard(number, rules(), state, add_up, Buffers(piece.size), identity=identity)
    if is_ahead:
        gradient = 2 * VALUE[piece.start : piece.stop]
        shard.handle("w", Push(RUN, number, b"w" * 16, 1, version, 0, 2, version, (2.0,), None, (gradient,)), 0.0)
        assert shard.version == version + 1
    server = Server(endpoint, shard, link=Connection(coordinator), notify=lambda event: None)

    def run():
        try:
            return server.run()
        finally:
            server.close()

    return OnThread(run)


class Coordinating:
    """A first server that was started again: it looks for its shards, and goes on with the run once it has them."""

    def __init__(self):
        self.endpoint = Endpoint(LISTEN, 1 << 20)
        self.events = []
        self._written = []

    def run(self):
        gathering = Gathering(rules(), partition(SIZE, 2))
        server = Server(self.endpoint, None, coordinator=gathering, notify=self.events.append)
        try:
            server.run()
            server.leave()
            coordinator = Coordinator(
                rules(),
                partition(SIZE, 2),
                self.endpoint.address,
                b"{}",
                ShardState(0, np.zeros(SIZE, np.float32), {}),
                found=gathering.found,
            )
            server = Server(self.endpoint, None, coordinator=coordinator, notify=self._notice)
            server.dispatch(coordinator.begin(time.monotonic()))
            return server.run(lambda: self._tick(server, coordinator))
        finally:
            server.close()

    def _notice(self, event):
        self.events.append(event)
        if isinstance(event, SnapshotTaken):
            self._written.append(event.version)

    def _tick(self, server, coordinator):
        while self._written:
            server.dispatch(coordinator.finished_writing(self._written.pop(), time.monotonic()))


def test_a_coordinator_without_a_shard_finds_those_of_its_run_and_training_goes_on():
    program, first = Program(), Coordinating()
    address = first.endpoint.address
    running = OnThread(first.run)
    # The worker comes while the coordinator still looks for the servers, of which one is a version ahead.
    worker = OnThread(
        lambda: work(address, program, name="w", fingerprint="f", connect_timeout=PATIENCE, should_stop=lambda: False)
    )
    assert program.waits.wait(PATIENCE)
    servers = [shard_server(address, number, 7, is_ahead=number == 1) for number in (0, 1)]

    assert running.result() == RunEnded(False, "done")
    assert worker.result() == Outcome(False, "done")
    assert [server.result() for server in servers] == [RunEnded(False, "done")] * 2
    assert program.prepared == 1
    (taken,) = [event for event in first.events if isinstance(event, SnapshotTaken)]
    np.testing.assert_array_equal(np.concatenate([part.payload[0] for part in taken.parts]), STEPS * 2 * VALUE)
    steps = [(event.step, event.metrics) for event in first.events if isinstance(event, StepApplied)]
    assert steps == [(step, (2.0,)) for step in range(7, STEPS)]
    assert [event for event in first.events if isinstance(event, Refused)] == []


def test_a_server_without_a_shard_answers_what_is_for_one():
    first = Coordinating()
    search = Gathering(rules(), partition(SIZE, 2))
    server = Server(first.endpoint, None, coordinator=search, notify=first.events.append)
    running = OnThread(server.run)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(first.endpoint.address)
        for message in (
            Pull(RUN, 0, (0, None), False),
            Push(RUN, 0, b"s" * 16, 1, 0, 0, 1, 0, (1.0,), None, (VALUE,)),
        ):
            dealer.send_multipart(encode(message))
            assert dealer.poll(1000 * PATIENCE)
            assert decode(dealer.recv_multipart(), TO_CLIENT).code == "not-here"
    assert running.result() == RunEnded(True, "none of the other servers is there")
    server.close()
    assert dict(search.refusals.counts) == {"not-here": 2}
