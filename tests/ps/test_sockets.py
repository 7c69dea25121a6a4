"""Real sockets: whole runs over tcp and ipc, strangers at the door, servers that come late or not at all."""

import contextlib
import functools
import threading
import time
from collections import Counter

import msgpack
import numpy as np
import pytest
import zmq

from ps_vae.errors import DataError, RefusedError, Unreachable, UsageError
from ps_vae.ps.actions import Result
from ps_vae.ps.addresses import connectable
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.client import Outcome, evaluate, work
from ps_vae.ps.consistency import Consistency, parse_consistency
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.frames import decode, encode
from ps_vae.ps.identity import ServerIdentity
from ps_vae.ps.joining import join
from ps_vae.ps.messages import PROTOCOL, TO_CLIENT, Applied, Join, Pull, Push, TakeSnapshot
from ps_vae.ps.observer import Observer
from ps_vae.ps.outbox import Refused, RunEnded, SnapshotTaken, Told
from ps_vae.ps.partition import partition
from ps_vae.ps.rules import RunRules
from ps_vae.ps.server import Server
from ps_vae.ps.shard import Shard
from ps_vae.ps.state import ShardState
from ps_vae.ps.transport import open_segment

RUN = b"r" * 16
SESSION = b"s" * 16
SIZE = 160
VALUE = np.arange(SIZE, dtype=np.float32)
PATIENCE = 30.0


def add_up(weights, parts, state, moment, out):
    np.add(weights, functools.reduce(np.add, parts), out=out)


class FirstServer:
    """A first server on a thread of its own, as a context; `result` is the last snapshot, put together."""

    def __init__(
        self,
        listen,
        *,
        shards=1,
        steps=20,
        consistency="bsp",
        microbatches=4,
        frame_limit=1 << 20,
        transport="auto",
        keys=None,
    ):
        self.endpoint = Endpoint(listen, frame_limit, keys)
        self.address = self.endpoint.address
        rules = RunRules(RUN, microbatches, steps, parse_consistency(consistency), 10, metrics=1)
        slices = partition(SIZE, shards)
        initial = ShardState(0, np.zeros(SIZE, np.float32), {})
        self.coordinator = Coordinator(rules, slices, self.address, b"{}", initial)
        state = ShardState(0, initial.weights[: slices[0].stop].copy(), {})
        segment = open_segment(8, slices[0].size, transport)
        published = Buffers(slices[0].size, segment.arrays() if segment is not None else ())
        self.shard = Shard(0, rules, state, add_up, published)
        self.server = Server(
            self.endpoint, self.shard, coordinator=self.coordinator, segment=segment, notify=self._notice
        )
        self.events = []
        self.result = None
        self.failure = None
        self.has_refused = threading.Event()
        self._stop = threading.Event()
        self._written = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server does not end"
        if self.failure is not None:
            raise self.failure

    def ended_when_told(self):
        self._stop.set()
        return self.ended()

    def ended(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the run does not end"
        return self.server.ended

    def stop(self):
        self._stop.set()

    def refused(self):
        return [event.code for event in self.events if isinstance(event, Refused)]

    def _run(self):
        try:
            self.server.run(self._tick)
        except Exception as error:
            self.failure = error
        finally:
            self.server.close()

    def _tick(self):
        now = time.monotonic()
        while self._written:
            self.server.dispatch(self.coordinator.finished_writing(self._written.pop(), now))
        if self._stop.is_set():
            self.server.dispatch(self.coordinator.stop(now))

    def _notice(self, event):
        self.events.append(event)
        if isinstance(event, SnapshotTaken):
            self.result = np.concatenate([part.payload[0] for part in event.parts])
            self._written.append(event.version)
        if isinstance(event, Refused):
            self.has_refused.set()


class Program:
    """A worker's program: each microbatch's gradient is VALUE."""

    def __init__(self, on_compute=lambda: None, on_join=lambda: None):
        self._on_compute = on_compute
        self._on_join = on_join

    def codecs(self, welcome):
        return [], 0

    def pull_codecs(self, welcome):
        return []

    def join(self, welcome, gradients):
        self._on_join()
        self._buffers = gradients

    def compute(self, weights, step, blocks):
        self._on_compute()
        results = []
        for block in blocks:
            gradient = self._buffers.take()
            np.multiply(VALUE, len(block), out=gradient)
            results.append(Result(block, gradient, (float(len(block)),)))
        return results

    def say(self, text):
        pass


class Client:
    """A client's loop on a thread; `outcome` waits for it."""

    def __init__(self, loop, address, program, **words):
        self._stop = threading.Event()
        self._outcome = None
        options = {"name": "w", "connect_timeout": PATIENCE, "should_stop": self._stop.is_set, **words}

        def run():
            try:
                self._outcome = loop(address, program, **options)
            except Exception as error:
                self._outcome = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def leave(self):
        self._stop.set()

    def outcome(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the client does not end"
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def worker(address, program=None, **words):
    return Client(work, address, program or Program(), fingerprint="same", **words)


def together(address, on_compute=lambda: None, **words):
    """Two workers that begin when both have joined."""
    both = threading.Barrier(2, timeout=PATIENCE)
    return [worker(address, Program(on_compute, both.wait), **words) for _ in range(2)]


@contextlib.contextmanager
def stranger(address):
    """A raw DEALER with a raw voice."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(address)
        yield dealer


def answer(dealer):
    """The next message, decoded; fails where none comes."""
    assert dealer.poll(1000 * PATIENCE), "no answer"
    return decode(dealer.recv_multipart(), TO_CLIENT)


@pytest.fixture(params=["tcp", "ipc"])
def listen(request, tmp_path):
    return "tcp://127.0.0.1:*" if request.param == "tcp" else f"ipc://{tmp_path}/s"


@pytest.mark.parametrize("transport", ["shm", "tcp"])
@pytest.mark.parametrize("consistency", ["bsp", "ssp:2", "asp"])
def test_two_workers_and_a_server_add_up_exactly(listen, consistency, transport):
    with FirstServer(listen, consistency=consistency, steps=200) as server:
        workers = together(server.address, transport=transport)

        assert server.ended() == RunEnded(False, "done")
        assert [one.outcome() for one in workers] == [Outcome(False, "done")] * 2
    np.testing.assert_array_equal(server.result, 200 * 4 * VALUE)
    assert server.refused() == []
    traffic = server.shard.traffic
    assert traffic.pushed >= 200 * VALUE.nbytes
    if transport == "tcp":
        assert traffic.shared == 0
    else:
        # Only what was under way before the memory was handed over went through the socket.
        assert traffic.shared > 0.8 * (traffic.pushed + traffic.pulled)


def test_a_worker_that_insists_on_shared_memory_gives_up_where_there_is_none():
    with FirstServer("tcp://127.0.0.1:*", transport="tcp", steps=1_000_000) as server:
        one = worker(server.address, transport="shm")
        with pytest.raises(RefusedError, match="use --transport auto"):
            one.outcome()
        assert server.ended_when_told() == RunEnded(False, "stopped")


@pytest.mark.parametrize("consistency", ["bsp", "ssp:2"])
def test_workers_that_share_memory_and_workers_that_do_not_add_up_to_the_same(consistency):
    with FirstServer("tcp://127.0.0.1:*", consistency=consistency, steps=200) as server:
        both = threading.Barrier(2, timeout=PATIENCE)
        mixed = [
            worker(server.address, Program(on_join=both.wait), transport=transport) for transport in ("auto", "tcp")
        ]
        assert server.ended() == RunEnded(False, "done")
        assert [one.outcome() for one in mixed] == [Outcome(False, "done")] * 2
    np.testing.assert_array_equal(server.result, 200 * 4 * VALUE)
    assert 0 < server.shard.traffic.shared < server.shard.traffic.pushed + server.shard.traffic.pulled


def test_a_second_server_joins_and_holds_its_part(listen, tmp_path):
    with FirstServer(listen, shards=2) as server:
        first = worker(server.address)
        endpoint = Endpoint(listen.replace("/s", "/t") if listen.startswith("ipc") else listen, 1 << 20)
        link, admit = join(
            server.address,
            Join(PROTOCOL, b"j" * 16, endpoint.address, False),
            timeout=PATIENCE,
            should_stop=lambda: False,
        )
        rules = RunRules(
            admit.run,
            admit.microbatches,
            admit.steps,
            Consistency(admit.bound, admit.delay, admit.version),
            admit.milestone,
            metrics=1,
        )
        state = ShardState(admit.version, admit.payload[0].copy(), {})
        identity = ServerIdentity(b"j" * 16, endpoint.address)
        shard = Shard(admit.shard, rules, state, add_up, Buffers(admit.stop - admit.start), identity=identity)
        second = Server(endpoint, shard, link=link, notify=lambda event: None)
        thread = threading.Thread(target=second.run, daemon=True)
        thread.start()

        assert server.ended() == RunEnded(False, "done")
        assert first.outcome() == Outcome(False, "done")
        thread.join(PATIENCE)
        second.close()
    assert second.ended == RunEnded(False, "done")
    np.testing.assert_array_equal(server.result, 20 * 4 * VALUE)


def test_an_evaluator_measures_the_last_version_before_the_run_ends():
    versions = []

    class Measurement:
        joined = threading.Event()

        def join(self, welcome):
            self.joined.set()
            self.weights = np.zeros(SIZE, np.float32)
            return self.weights

        def measure(self, version):
            versions.append(version)
            np.testing.assert_array_equal(self.weights, version * 4 * VALUE)
            return {"version": float(version)}

        def say(self, text):
            pass

    with FirstServer("tcp://127.0.0.1:*") as server:
        evaluator = Client(evaluate, server.address, Measurement())
        assert Measurement.joined.wait(PATIENCE)
        one = worker(server.address)

        assert server.ended() == RunEnded(False, "done")
        assert evaluator.outcome() == one.outcome() == Outcome(False, "done")
    assert versions[-1] == 20
    assert Told(20, (("version", 20.0),)) in server.events


NONSENSE = {
    "unknown-message": [msgpack.packb({"t": "surprise"})],
    "malformed": [b"\xc1"],
    "malformed: an empty frame": [b""],
    "malformed: 200 frames": [b"x"] * 200,
    "malformed: 200 tensors": [*encode(Push(RUN, 0, SESSION, 1, 0, 0, 4, 0, (4.0,), None, (VALUE,))), *[b"1234"] * 199],
    "malformed: a bomb": [b"\x91" * 60_000 + b"\xc0"],
    "malformed: a claim": [b"\xdd\xff\xff\xff\xff"],
    "malformed: a long header": [bytes(1 << 17)],
    "wrong-run": encode(Pull(b"x" * 16, 0, (0, None), False)),
    "wrong-run: a shard of another run": encode(Applied(b"x" * 16, 0, 5, (), 0, 0, 0, 0, 0, None, None)),
    "not-here": encode(Push(RUN, 1, SESSION, 1, 0, 0, 4, 0, (4.0,), None, (VALUE,))),
    "not-here: pull": encode(Pull(RUN, 1, (0, None), False)),
    "bad-block": encode(Push(RUN, 0, SESSION, 1, 0, 1, 3, 0, (4.0,), None, (VALUE,))),
    "bad-size": encode(Push(RUN, 0, SESSION, 1, 0, 0, 4, 0, (4.0,), None, (VALUE[:-1],))),
    "bad-step": encode(Push(RUN, 0, SESSION, 1, 9999, 0, 4, 0, (4.0,), None, (VALUE,))),
    "bad-shard": encode(Applied(RUN, 1, 5, (), 0, 0, 0, 0, 0, None, None)),
    "full": encode(Join(PROTOCOL, b"j" * 16, "tcp://x:1", False)),
    "protocol": encode(Join(PROTOCOL + 1, b"j" * 16, "tcp://x:1", False)),
    "unknown-message: a server's word": encode(TakeSnapshot(0)),
}


def test_strangers_are_answered_by_a_typed_error_and_the_good_worker_does_not_notice():
    with FirstServer("tcp://127.0.0.1:*") as server:
        with stranger(server.address) as dealer:
            for case, frames in NONSENSE.items():
                dealer.send_multipart(frames)
                assert answer(dealer).code == case.split(":")[0], case
        one = worker(server.address)
        assert server.ended() == RunEnded(False, "done")
        assert one.outcome() == Outcome(False, "done")
    np.testing.assert_array_equal(server.result, 20 * 4 * VALUE)


def test_nonsense_amid_the_work_changes_nothing():
    def shout():
        for frames in NONSENSE.values():
            dealer.send_multipart(frames)

    with FirstServer("tcp://127.0.0.1:*") as server, stranger(server.address) as dealer:
        one = worker(server.address, Program(shout))
        assert server.ended() == RunEnded(False, "done")
        assert one.outcome() == Outcome(False, "done")
    np.testing.assert_array_equal(server.result, 20 * 4 * VALUE)
    assert set(server.refused()) >= {"malformed", "unknown-message", "bad-size", "wrong-run"}
    # All are counted, and some are told.
    counts = dict(server.shard.refusals.counts)
    assert counts["malformed"] == 20 * sum(case.startswith("malformed") for case in NONSENSE)
    assert Counter(server.refused()) <= Counter(counts)


def test_an_oversized_frame_closes_the_strangers_connection_and_no_other():
    with FirstServer("tcp://127.0.0.1:*", frame_limit=1 << 16) as server:
        with stranger(server.address) as dealer:
            monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            dealer.send_multipart([b"x", bytes(1 << 20)])
            assert monitor.poll(1000 * PATIENCE), "the connection is still open"
            dealer.disable_monitor()
            monitor.close()
        one = worker(server.address)
        assert server.ended() == RunEnded(False, "done")
        assert one.outcome() == Outcome(False, "done")
    np.testing.assert_array_equal(server.result, 20 * 4 * VALUE)


def test_workers_may_be_there_before_the_server(listen, tmp_path):
    address = listen if listen.startswith("ipc") else f"tcp://127.0.0.1:{free_port()}"
    said = threading.Event()
    program = Program()
    program.say = lambda text: said.set()
    one = worker(address, program)
    assert said.wait(PATIENCE)

    with FirstServer(address) as server:
        assert server.ended() == RunEnded(False, "done")
        assert one.outcome() == Outcome(False, "done")
    np.testing.assert_array_equal(server.result, 20 * 4 * VALUE)


def test_a_worker_that_leaves_gives_its_work_to_the_other():
    with FirstServer("tcp://127.0.0.1:*", steps=200) as server:
        left = threading.Event()
        program = Program(lambda: (leaving.leave(), left.set()))
        leaving = worker(server.address, program)
        assert left.wait(PATIENCE)
        assert leaving.outcome() == Outcome(False, "told to stop")
        staying = worker(server.address)
        assert server.ended() == RunEnded(False, "done")
        assert staying.outcome() == Outcome(False, "done")
    np.testing.assert_array_equal(server.result, 200 * 4 * VALUE)


@pytest.mark.parametrize("consistency", ["bsp", "ssp:2", "asp"])
def test_stop_ends_a_run_within_seconds_in_a_snapshot_of_whole_steps(consistency):
    computing = threading.Event()
    with FirstServer("tcp://127.0.0.1:*", steps=10**6, consistency=consistency) as server:
        workers = together(server.address, computing.set)
        assert computing.wait(PATIENCE)
        since = time.monotonic()
        server.stop()
        assert server.ended() == RunEnded(False, "stopped")
        assert time.monotonic() - since < 5.0
        assert [one.outcome() for one in workers] == [Outcome(False, "stopped")] * 2
    np.testing.assert_array_equal(server.result, server.shard.version * 4 * VALUE)


def test_the_state_is_told_to_whoever_asks():
    with FirstServer("tcp://127.0.0.1:*") as server:
        observer = Observer(server.address)
        while (state := observer.ask(PATIENCE))["phase"] == "starting":
            pass
        observer.close()
    assert (state["version"], state["steps"], state["phase"]) == (0, 20, "training")


def test_nobody_who_listens_is_unreachable_after_the_timeout():
    address = f"tcp://127.0.0.1:{free_port()}"

    with pytest.raises(Unreachable, match=rf"no server answered at {address} within 0.3 s"):
        work(address, Program(), name="w", fingerprint="f", connect_timeout=0.3, should_stop=lambda: False)
    with pytest.raises(Unreachable, match="no server answered"):
        join(address, Join(PROTOCOL, b"j" * 16, "tcp://x:1", False), timeout=0.3, should_stop=lambda: False)
    observer = Observer(address)
    with pytest.raises(Unreachable, match="no server answered"):
        observer.ask(0.3)
    observer.close()


def test_an_address_in_use_is_said_in_one_line(listen):
    first = Endpoint(listen, 1 << 20)
    try:
        with pytest.raises(Unreachable, match=r"cannot listen on .*; give another address to --listen"):
            Endpoint(first.address, 1 << 20)
    finally:
        first.close()


NO_ADDRESS = [
    "",
    "localhost:5555",
    "http://x:1",
    "tcp://",
    "tcp://host",
    "tcp://host:",
    "tcp://host:0",
    "tcp://host:99999",
    "tcp://host:http",
    "tcp://:5",
    "tcp://*:5555",
    "ipc://",
    "ipc://" + "x" * 108,
]


def test_a_server_that_ends_leaves_no_socket_file(tmp_path):
    endpoint = Endpoint(f"ipc://{tmp_path}/s", 1 << 20)
    assert (tmp_path / "s").is_socket()
    endpoint.close()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_ends_leaves_the_socket_file_of_the_one_that_is_there_now(tmp_path):
    first = Endpoint(f"ipc://{tmp_path}/s", 1 << 20)
    # Somebody has cleaned up: nobody is found to listen, so a second server may.
    (tmp_path / "s").unlink()
    second = Endpoint(f"ipc://{tmp_path}/s", 1 << 20)
    first.close()
    assert (tmp_path / "s").is_socket()
    second.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", NO_ADDRESS)
def test_words_that_are_no_address_are_the_users_mistake(address):
    with pytest.raises(UsageError, match=r"is not an address|is longer than the 107 characters"):
        work(address, Program(), name="w", fingerprint="f", connect_timeout=1.0, should_stop=lambda: False)


def test_a_full_run_refuses_a_further_server():
    with FirstServer("tcp://127.0.0.1:*") as server, pytest.raises(RefusedError, match="the run has its 1 shards"):
        join(server.address, Join(PROTOCOL, b"k" * 16, "tcp://x:1", False), timeout=PATIENCE, should_stop=lambda: False)


def test_data_that_cannot_be_read_end_the_run_with_the_reason():
    def fail():
        raise DataError("row 7 is gone")

    with FirstServer("tcp://127.0.0.1:*") as server:
        one = worker(server.address, Program(fail))
        assert server.ended() == RunEnded(True, "w: row 7 is gone")
        assert one.outcome() == Outcome(True, "w: row 7 is gone")


def free_port():
    endpoint = Endpoint("tcp://127.0.0.1:*", 1 << 16)
    port = connectable(endpoint.address).rsplit(":", 1)[1]
    endpoint.close()
    return port
