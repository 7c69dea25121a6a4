"""A peer that does not read, or writes more than is read, costs a server a bounded amount."""

import numpy as np
import pytest
import zmq

from ps_vae.ps import sockets
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.clients import Clients
from ps_vae.ps.messages import Stop, Weights
from ps_vae.ps.traffic import Traffic

SIZE = 1 << 18
PATIENCE = 20_000


@pytest.fixture
def pair():
    """A server's clients, and one peer's raw socket, which its server has heard of once; neither reads by itself."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        sockets.configure_router(router, 4 * SIZE)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVHWM, 1)
        dealer.setsockopt(zmq.SNDHWM, 1)
        weights = Buffers(SIZE)
        clients = Clients(router, None, weights, Traffic())
        port = router.bind_to_random_port("tcp://127.0.0.1")
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(b"x")
        assert router.poll(PATIENCE)
        sender, _ = sockets.receive_from(router)
        yield clients, sender, weights, dealer


def publish(clients, sender, weights, version):
    """Publish one version and send it, as a shard does; whether the peer counts as there."""
    array = weights.take()
    array[:] = version
    is_there = clients.send(sender, [Weights(version, False, None, (array,))])
    weights.give(array)
    return is_there


def test_a_reader_that_stands_still_keeps_few_versions_from_being_written_over(pair):
    clients, sender, weights, _ = pair

    for version in range(300):
        assert publish(clients, sender, weights, version)

    # Eight that wait, one that is written; what the kernel has taken is done with.
    assert weights.made <= 10


def test_a_reader_whose_queue_is_full_is_gone(pair):
    clients, sender, weights, _ = pair
    for version in range(300):
        publish(clients, sender, weights, version)

    sent = [clients.send(sender, [Stop(False, "")]) for _ in range(70)]

    assert True in sent
    assert False in sent


def test_a_reader_that_reads_again_gets_whole_messages_in_order(pair):
    clients, sender, weights, dealer = pair
    for version in range(300):
        publish(clients, sender, weights, version)

    got = []
    while dealer.poll(500):
        _, tensor = dealer.recv_multipart()
        values = np.frombuffer(tensor, np.float32)
        assert values.min() == values.max()
        got.append(int(values[0]))
    assert publish(clients, sender, weights, 300)
    assert dealer.poll(PATIENCE)

    assert got[:5] == [0, 1, 2, 3, 4]
    assert got == sorted(set(got))


def test_what_a_server_has_not_read_yet_is_bounded(pair):
    _, _, _, dealer = pair
    message = bytes(1 << 18)
    count = 0
    # Nobody reads: when nothing can be sent for a while all queues are full.
    while dealer.poll(500, zmq.POLLOUT):
        dealer.send(message)
        count += 1

    # 256 in the server's queue; the rest lies in the kernel.
    kernels = 32 << 20
    assert count <= 256 + kernels // len(message)
