"""The kernel's counts of bytes and pages, against what this process does."""

import os
import socket

import numpy as np
from exchange.counters import interface_bytes, tcp_bytes
from exchange.memory import allowed, widths
from exchange.resident import mappings, resident

from ps_vae.ps.sharing.segment import Segment
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.layout import ParameterLayout

MEGABYTE = 1 << 20


def test_bytes_of_a_tcp_connection_are_counted_at_both_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as near:
        far, _ = door.accept()
        with far:
            before, interface = tcp_bytes(), interface_bytes("lo")
            near.sendall(bytes(30_000))
            received = 0
            while received < 30_000:
                received += len(far.recv(1 << 16))
            # What is answered tells that the whole of it has arrived, and been acknowledged.
            far.sendall(b"all of it")
            near.recv(16)
            after = tcp_bytes()

    assert after[1] - before[1] == 30_009
    assert 30_000 <= after[0] - before[0] <= 30_009
    assert interface_bytes("lo") - interface >= 30_009


def test_a_closed_connection_does_not_count_any_more() -> None:
    before = tcp_bytes()

    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as near:
        near.sendall(bytes(1000))

    assert tcp_bytes() == before


def test_own_pages_are_told_from_those_of_files() -> None:
    before = resident(os.getpid())

    mine = np.ones(8 * MEGABYTE, np.uint8)

    after = resident(os.getpid())
    assert 8 * MEGABYTE - 4096 <= after.own - before.own < 16 * MEGABYTE
    assert after.peak >= after.own + after.files - MEGABYTE
    assert mine.size == 8 * MEGABYTE


def test_own_segments_are_told_from_borrowed_ones() -> None:
    before = mappings(os.getpid())

    own = Segment.create(4, MEGABYTE)
    own.array(0)[:] = 1.0
    written = mappings(os.getpid())
    with own.readable() as descriptor:
        borrowed = Segment.open(descriptor, 4, MEGABYTE)
    total = float(borrowed.array(0).sum())
    read = mappings(os.getpid())
    own.close()

    assert total == MEGABYTE
    assert written.own_segments - before.own_segments == 4 * MEGABYTE, "slots that were not written to need no memory"
    assert read.borrowed_segments - before.borrowed_segments == 4 * MEGABYTE
    assert read.own_segments == written.own_segments


def test_a_server_of_50_million_parameters_may_need_8_vectors_and_150_mb() -> None:
    assert allowed(50_000_000) == 1.15 * 8 * 200e6 + 150e6


def test_the_models_have_about_as_many_parameters_as_they_should() -> None:
    for size in (10_000, 652_824, 3_000_000, 50_000_000, 200_000_000):
        layout = ParameterLayout(ModelConfig(inputs=784, hidden=widths(size), latent=20))
        assert abs(layout.size - size) < 0.08 * size, f"{layout.size} for {size}"
