"""Where a server says that it is: what others are going to connect to, whoever says it."""

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from test_sockets import PATIENCE, FirstServer, answer, stranger, worker

from ps_vae.ps.addresses import connectable, is_advertised, on_host, same_host
from ps_vae.ps.client import Outcome
from ps_vae.ps.connection import Connection
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.frames import encode
from ps_vae.ps.joining import join
from ps_vae.ps.messages import PROTOCOL, Join
from ps_vae.ps.outbox import RunEnded

ADDRESSES = [
    "tcp://127.0.0.1:5555",
    "tcp://*:5555",
    "tcp://node-7.example.org:1",
    "tcp://my_server:65535",
    "tcp://[::1]:5555",
    "tcp://[fe80::1%eth0]:5555",
    "ipc:///tmp/run",
]
NONE = [
    "",
    "a",
    "http://x:1",
    "tcp://",
    "tcp://[",
    "tcp://[]:1",
    "tcp://[1:2]:1",
    "tcp://host:0",
    "tcp://host:65536",
    "tcp://host:-1",
    "tcp://host:*",
    "tcp://;;;:1",
    "tcp://eth0;10.0.0.1:1",
    "tcp://a b:1",
    "tcp://\u0661:1",
    "tcp://host:\u0661",
    "tcp://host:1\n",
    "ipc://",
    "ipc://" + "x" * 108,
    "ipc://a\0b",
    "inproc://x",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_servers_advertise_is_an_address(address):
    assert is_advertised(address)


@pytest.mark.parametrize("address", NONE)
def test_what_nobody_can_connect_to_is_none(address):
    assert not is_advertised(address)


@given(st.one_of(st.from_regex(r"(tcp|ipc)://[^\n]{0,12}:[0-9]{1,6}", fullmatch=True), st.text(max_size=20)))
def test_nothing_that_passes_for_an_address_makes_a_connection_fail(address):
    if is_advertised(address):
        with zmq.Context() as context:
            Connection(connectable(on_host(address, "tcp://127.0.0.1:1")), context).close(0.0)


@pytest.mark.parametrize("listen", ["tcp://127.0.0.2:*", "tcp://127.0.0.1:*", "tcp://0.0.0.0:*"])
def test_a_server_on_the_first_one_s_host_is_watched_where_that_one_listens(listen):
    with FirstServer(listen) as server:
        endpoint = Endpoint(listen, 1 << 20)
        try:
            monitor = endpoint.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            ask = Join(PROTOCOL, b"j" * 16, same_host(endpoint.address), True)
            link, _ = join(connectable(server.address), ask, timeout=PATIENCE, should_stop=lambda: False)
            link.close(0.0)
            assert monitor.poll(1000 * PATIENCE), "nobody has come to see whether it is there"
        finally:
            endpoint.socket.disable_monitor()
            monitor.close()
            endpoint.close()


@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("address", ["", "x", "tcp://[", "tcp://host:0", "ipc://" + "x" * 200])
def test_a_server_that_joins_from_nowhere_is_refused_and_the_run_goes_on(address, follows):
    with FirstServer("tcp://127.0.0.1:*") as server:
        with stranger(server.address) as dealer:
            dealer.send_multipart(encode(Join(PROTOCOL, b"j" * 16, address, follows)))
            assert answer(dealer).code == "malformed"
        one = worker(server.address)
        assert server.ended() == RunEnded(False, "done")
        assert one.outcome() == Outcome(False, "done")
