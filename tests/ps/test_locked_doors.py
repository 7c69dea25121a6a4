"""Real sockets with keys: strangers stay outside, whoever is inside does not notice, and a key can be taken away."""

import contextlib
import socket
import threading
import time
from collections import Counter

import numpy as np
import pytest
import zmq
from strangers import KINDS, answer_to, strangers
from test_sockets import PATIENCE, VALUE, Client, FirstServer, Program, answer, together, worker

from ps_vae.errors import RefusedError, SecurityError, Unreachable
from ps_vae.ps.client import Outcome, work
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.frames import encode
from ps_vae.ps.joining import join
from ps_vae.ps.messages import PROTOCOL, Applied, Bye, Error, Hello, Join, Pull, Share, Status, Welcome
from ps_vae.ps.observer import Observer
from ps_vae.ps.outbox import Refused, RunEnded
from ps_vae.ps.security.door import Door, new_pair, use_keys
from ps_vae.ps.security.keys import ClientKeys, ServerKeys
from ps_vae.ps.security.rehearsal import rehearse

LISTEN = "tcp://127.0.0.1:*"
RUN = b"r" * 16
SESSION = b"w" * 16
MANY = 25


class Keys:
    """A server's, and a client's that it knows."""

    def __init__(self):
        self.own, self.pair = new_pair(), new_pair()
        self.allowed = {self.pair.public: "w"}
        self.server = ServerKeys(self.own, self.allowed.get)
        self.client = ClientKeys(self.pair, self.own.public)

    def another(self):
        pair = new_pair()
        self.allowed[pair.public] = "another"
        return ClientKeys(pair, self.own.public)


@pytest.fixture
def keys():
    return Keys()


@pytest.fixture
def dealer_of():
    """A raw DEALER with keys and a raw voice."""
    with zmq.Context() as context:
        sockets = []

        def connect(address, keys):
            dealer = context.socket(zmq.DEALER)
            sockets.append(dealer)
            dealer.linger = 0
            use_keys(dealer, keys)
            dealer.connect(address)
            return dealer

        yield connect
        for dealer in sockets:
            dealer.close(0)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_workers_with_keys_add_up_exactly(keys, transport):
    with FirstServer(LISTEN, keys=keys.server, steps=100) as server:
        workers = together(server.address, transport=transport, keys=keys.client)

        assert server.ended() == RunEnded(False, "done")
        assert [one.outcome() for one in workers] == [Outcome(False, "done")] * 2
    np.testing.assert_array_equal(server.result, 100 * 4 * VALUE)
    assert server.refused() == []
    assert (server.shard.traffic.shared > 0) == (transport == "shm")


def test_a_frame_of_exactly_the_limit_passes_encrypted(keys, dealer_of):
    with FirstServer(LISTEN, keys=keys.server, frame_limit=1 << 17) as server:
        dealer = dealer_of(server.address, keys.client)
        dealer.send_multipart([b"x", bytes(1 << 17)])
        assert answer(dealer).code == "malformed"


@pytest.mark.parametrize("kind", KINDS)
def test_strangers_stay_outside_and_a_worker_goes_on_beside_them(keys, kind):
    revoked = keys.another().own
    del keys.allowed[revoked.public]
    with FirstServer(LISTEN, keys=keys.server, steps=1_000_000) as server:
        stepped, enough = threading.Semaphore(0), 50
        one = worker(server.address, Program(stepped.release), keys=keys.client)
        with strangers(server.address, kind, MANY, keys.own.public, revoked) as were_answered:
            for _ in range(enough):
                assert stepped.acquire(timeout=PATIENCE)
            assert not were_answered()
        assert server.ended_when_told() == RunEnded(False, "stopped")
        assert one.outcome() == Outcome(False, "stopped")
    np.testing.assert_array_equal(server.result, server.shard.version * 4 * VALUE)
    assert set(server.refused()) <= {"unknown-key"}


def outsider(keys, kind):
    if kind == "no key":
        return None
    if kind == "unknown key":
        return ClientKeys(new_pair(), keys.own.public)
    return ClientKeys(keys.pair, new_pair().public)


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("no key", "unknown-key", "give the folder of yours with --keys"),
        ("unknown key", "unknown-key", "ps-vae keys allow"),
        ("wrong server", "wrong-server", "public key"),
    ],
)
def test_who_is_not_let_in_is_told_why_within_its_timeout(keys, kind, code, words):
    shown = outsider(keys, kind)
    options = {"name": "w", "fingerprint": "f", "connect_timeout": 1.0, "should_stop": lambda: False}
    with FirstServer(LISTEN, keys=keys.server) as server:
        since = time.monotonic()
        with pytest.raises(RefusedError, match=words) as refusal:
            work(server.address, Program(), keys=shown, **options)
        assert refusal.value.code == code
        assert time.monotonic() - since < 5.0
        with pytest.raises(RefusedError, match=words):
            join(
                server.address,
                Join(PROTOCOL, SESSION, "tcp://x:1", False),
                timeout=1.0,
                should_stop=lambda: False,
                keys=shown,
            )
        observer = Observer(server.address, shown)
        with pytest.raises(RefusedError, match=words):
            observer.ask(1.0)
        observer.close()


def test_keys_shown_to_a_server_that_has_none_are_told_to_be_too_many(keys):
    with FirstServer(LISTEN) as server:
        observer = Observer(server.address, keys.client)
        end = time.monotonic() + PATIENCE
        refusal = None
        while refusal is None:
            assert time.monotonic() < end, "nobody says why"
            try:
                observer.ask(0.1)
            except Unreachable:
                # No handshake has failed yet.
                continue
            except RefusedError as error:
                refusal = error
        observer.close()
    # ZeroMQ says which it is only if the server's greeting is read before its connection is gone.
    assert refusal.code in ("no-keys", "wrong-server")
    assert "knows no keys" in str(refusal)


@pytest.mark.parametrize("has_keys", [True, False])
def test_keys_to_fall_back_on_fit_either_server(keys, has_keys):
    spare = ClientKeys(keys.pair, keys.own.public, if_asked=True)
    with FirstServer(LISTEN, keys=keys.server if has_keys else None) as server:
        one = worker(server.address, keys=spare)
        assert server.ended() == RunEnded(False, "done")
        assert one.outcome() == Outcome(False, "done")
    np.testing.assert_array_equal(server.result, 20 * 4 * VALUE)


def test_a_key_that_is_allowed_while_its_worker_waits_lets_it_in(keys):
    late = ClientKeys(new_pair(), keys.own.public)
    told = threading.Event()
    program = Program()
    program.say = lambda text: told.set() if "keys allow" in text else None
    with FirstServer(LISTEN, keys=keys.server) as server:
        one = worker(server.address, program, keys=late)
        assert told.wait(PATIENCE)
        keys.allowed[late.own.public] = "late"
        assert server.ended() == RunEnded(False, "done")
        assert one.outcome() == Outcome(False, "done")


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_worker_whose_key_is_revoked_is_cut_off_and_its_work_done_by_another(keys, transport):
    doomed = keys.another()
    computing, stays = threading.Event(), threading.Semaphore(0)
    with FirstServer(LISTEN, keys=keys.server, steps=1_000_000) as server:
        first = worker(server.address, Program(computing.set), keys=doomed, transport=transport)
        assert computing.wait(PATIENCE)
        second = worker(server.address, Program(stays.release), keys=keys.client, transport=transport)
        assert stays.acquire(timeout=PATIENCE)
        del keys.allowed[doomed.own.public]
        with pytest.raises(RefusedError) as refusal:
            first.outcome()
        assert refusal.value.code == "revoked"
        for _ in range(stays._value + 20):
            assert stays.acquire(timeout=PATIENCE)
        assert [client.name for client in server.coordinator.clients.values()] == ["w"]
        assert server.ended_when_told() == RunEnded(False, "stopped")
        assert second.outcome() == Outcome(False, "stopped")
    np.testing.assert_array_equal(server.result, server.shard.version * 4 * VALUE)


def test_a_revoked_peer_that_does_not_leave_gets_nothing_any_more(keys, dealer_of):
    with FirstServer(LISTEN, keys=keys.server) as server:
        other = keys.another()
        dealer = dealer_of(server.address, other)
        assert answer_to(dealer, Status(), PATIENCE).KIND == "state"
        # To be answered when version 1 is there, which it never is for this one.
        dealer.send_multipart(encode(Pull(RUN, 0, (1, 1), False)))
        assert answer_to(dealer, Status(), PATIENCE).KIND == "state"
        del keys.allowed[other.own.public]
        assert answer(dealer).code == "revoked"
        for message in (Status(), Share(), Pull(RUN, 0, (0, None), False), Bye(SESSION)):
            assert answer_to(dealer, message, PATIENCE).code == "revoked"
        one = worker(server.address, keys=keys.client)
        assert server.ended() == RunEnded(False, "done")
        assert one.outcome() == Outcome(False, "done")
        assert not dealer.poll(0)


def test_a_session_cannot_be_taken_over_with_another_key(keys, dealer_of):
    with FirstServer(LISTEN, keys=keys.server, steps=20) as server:
        victim, thief = dealer_of(server.address, keys.client), dealer_of(server.address, keys.another())
        hello = Hello(PROTOCOL, SESSION, "worker", "victim", "f")
        while not isinstance(answer_to(victim, hello, PATIENCE), Welcome):
            pass
        for message in (hello, Bye(SESSION), Hello(PROTOCOL, SESSION, "evaluator", "thief", "f")):
            assert answer_to(thief, message, PATIENCE).code == "wrong-key"
        assert [client.name for client in server.coordinator.clients.values()] == ["victim"]


@pytest.mark.parametrize(
    "message", [Join(PROTOCOL, SESSION, "tcp://x:1", False), Applied(RUN, 0, 5, (), 0, 0, 0, 0, 0, None, None)]
)
def test_a_worker_s_key_does_not_make_a_server(keys, dealer_of, message):
    with FirstServer(LISTEN, keys=keys.server, shards=2) as server:
        dealer = dealer_of(server.address, keys.client)

        refusal = answer_to(dealer, message, PATIENCE)

        assert isinstance(refusal, Error)
        assert refusal.code == "wrong-key"
        assert server.coordinator.shards[1].session is None


def test_the_servers_key_makes_one(keys):
    with FirstServer(LISTEN, keys=keys.server, shards=2) as server:
        shown = ClientKeys(keys.own, keys.own.public)
        link, admit = join(
            server.address,
            Join(PROTOCOL, SESSION, "tcp://127.0.0.1:1", False),
            timeout=PATIENCE,
            should_stop=lambda: False,
            keys=shown,
        )
        link.close(0.0)
        assert admit.shard == 1


def test_nothing_is_served_where_the_doorkeeper_lets_in_anybody(keys):
    with pytest.raises(SecurityError, match="lets in a key that nobody has allowed"):
        Endpoint(LISTEN, 1 << 16, ServerKeys(keys.own, lambda public: "anybody"))


def test_the_rehearsal_notices_a_server_that_asks_nobody_who_may_come_in(keys):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret.encode())
        port = router.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(SecurityError, match="lets in a key that nobody has allowed"):
            rehearse(f"tcp://127.0.0.1:{port}", keys.own)


def test_the_rehearsal_notices_a_server_that_wants_no_key(keys):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(SecurityError, match="lets in who has no key"):
            rehearse(f"tcp://127.0.0.1:{port}", keys.own)


def test_the_rehearsal_notices_a_server_that_lets_in_nobody(keys):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret.encode())
        router.setsockopt(zmq.ZAP_DOMAIN, b"d")
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(SecurityError, match="does not let in the servers' own key"):
            rehearse(f"tcp://127.0.0.1:{port}", keys.own)


def test_where_the_doorkeeper_is_gone_nobody_comes_in(keys, monkeypatch):
    gone = threading.Event()
    monkeypatch.setattr(Door, "_run", lambda door: (door._questions.close(0), gone.set()))
    monkeypatch.setattr("ps_vae.ps.endpoint.rehearse", lambda *words: gone.wait(PATIENCE) and rehearse(*words))
    with pytest.raises(SecurityError, match="does not let in the servers' own key"):
        Endpoint(LISTEN, 1 << 16, keys.server)


def test_an_endpoint_with_keys_ends_without_leaving_its_doorkeeper(keys):
    before = set(threading.enumerate())
    for _ in range(3):
        Endpoint(LISTEN, 1 << 16, keys.server).close()

    assert set(threading.enumerate()) <= before


def test_strangers_are_told_of_once_in_a_while_and_not_one_by_one(keys, monkeypatch):
    monkeypatch.setattr("ps_vae.ps.server._DOOR_SECONDS", 0.2)
    with FirstServer(LISTEN, keys=keys.server) as server:
        with strangers(server.address, "unknown key", MANY, keys.own.public):
            assert server.has_refused.wait(PATIENCE)
        (told, *_) = [event for event in server.events if isinstance(event, Refused)]
        assert told.code == "unknown-key"
        assert len(server.refused()) < MANY
        assert "127.0.0.1" in told.who
        assert "is not allowed" in told.text
    assert dict(server.shard.refusals.counts) == Counter(server.refused())


def test_an_evaluator_comes_in_with_a_key_too(keys):
    from ps_vae.ps.client import evaluate

    class Measurement:
        def join(self, welcome):
            self.weights = np.zeros(VALUE.size, np.float32)
            return self.weights

        def measure(self, version):
            return {"version": float(version)}

        def say(self, text):
            pass

    with FirstServer(LISTEN, keys=keys.server) as server:
        evaluator = Client(evaluate, server.address, Measurement(), keys=keys.client)
        one = worker(server.address, keys=keys.client)
        assert server.ended() == RunEnded(False, "done")
        assert one.outcome() == Outcome(False, "done")
        assert evaluator.outcome() == Outcome(False, "done")


def test_there_are_as_many_connections_as_there_may_be_and_who_waits_comes_in_when_one_goes(keys, monkeypatch):
    monkeypatch.setattr("ps_vae.ps.security.door._CONNECTIONS", 3)
    with FirstServer(LISTEN, keys=keys.server) as server:
        observers = [Observer(server.address, keys.client) for _ in range(3)]
        for one in observers:
            assert one.ask(PATIENCE)["version"] == 0
        late = Observer(server.address, keys.client)
        with pytest.raises(RefusedError, match="has as many connections as it may have"):
            late.ask(1.0)
        observers.pop().close()
        assert late.ask(PATIENCE)["version"] == 0
        for one in [*observers, late]:
            one.close()


HALF = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03"


@pytest.mark.parametrize(
    ("said", "has_keys"),
    [*((said, True) for said in (b"", b"\xff", HALF, b"GET / HTTP/1.1\r\n\r\n")), (b"", False), (HALF, False)],
)
def test_who_does_not_come_through_the_door_in_time_is_sent_away(keys, has_keys, said, monkeypatch):
    monkeypatch.setattr("ps_vae.ps.sockets._HANDSHAKE_MILLISECONDS", 300)
    endpoint = Endpoint(LISTEN, 1 << 16, keys.server if has_keys else None)
    try:
        with socket.create_connection(("127.0.0.1", int(endpoint.address.rsplit(":", 1)[1])), PATIENCE) as stream:
            stream.sendall(said)
            with contextlib.suppress(ConnectionResetError):
                # A greeting, and then the end; a time-out is an error here.
                while stream.recv(1 << 10):
                    pass
    finally:
        endpoint.close()
