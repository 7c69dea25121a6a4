"""Strangers at the doors of servers, any number of them at once.

    python -m faults.crowd --server ADDRESS --keys FOLDER --key NAME

order {"kind", "count", "seconds", "again"}  so many of one kind (`strangers.KINDS`, or "given key") come, stay so long,
                                             and leave; who is sent away comes again after `again` seconds; 0: never
answer {"came", "answered"}                  how many there were, and how many ever got a message from the server

Each asks how the run is, as soon as it may.
"""

import argparse
import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zmq
from exchange.turns import Orders, answer

from ps_vae.ps import sockets
from ps_vae.ps.frames import encode
from ps_vae.ps.messages import Status
from ps_vae.ps.security.door import new_pair, use_keys
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.train.key_folder import KeyFolder

__all__ = ["come", "raise_limit"]

_RUBBISH = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(range(256)) * 16
_HALF = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03"
_POLL_SECONDS = 0.05


def come(address: str, kind: str, count: int, seconds: float, again: float, given: ClientKeys) -> dict[str, Any]:
    """See the module's text; given: the pair of the kinds "given key" and "revoked key", and the server's."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if kind in ("rubbish", "half-open"):
            there = list(_streams(stack, address, kind, count))
            _stay(began + seconds)
            return {"came": len(there), "answered": sum(map(_is_answered, there))}
        context = stack.enter_context(zmq.Context())
        context.max_sockets = 2 * count + 64
        poller, answered = zmq.Poller(), set()
        for _ in range(count):
            poller.register(stack.enter_context(_dealer(context, address, kind, again, given)), zmq.POLLIN)
        while time.monotonic() < began + seconds:
            for dealer, _ in poller.poll(round(1000 * _POLL_SECONDS)):
                answered.add(dealer)
                poller.unregister(dealer)
        return {"came": count, "answered": len(answered)}


def raise_limit() -> None:
    """As many descriptors as this process may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _dealer(context: zmq.Context[Any], address: str, kind: str, again: float, given: ClientKeys) -> zmq.Socket[bytes]:
    dealer = context.socket(zmq.DEALER)
    sockets.configure(dealer, 1 << 16)
    dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 0)
    dealer.setsockopt(zmq.RECONNECT_IVL, round(1000 * again) or -1)
    if kind == "unknown key":
        use_keys(dealer, ClientKeys(new_pair(), given.server))
    elif kind == "wrong server":
        use_keys(dealer, ClientKeys(given.own, new_pair().public))
    elif kind != "no key":
        use_keys(dealer, given)
    dealer.connect(address)
    dealer.send_multipart(encode(Status()))
    return dealer


def _streams(stack: contextlib.ExitStack, address: str, kind: str, count: int) -> Iterator[socket.socket]:
    place = urlsplit(address)
    for _ in range(count):
        stream = stack.enter_context(socket.create_connection((place.hostname, place.port)))
        # The greeting's first half, or nothing that it could be; the server may be quick to hang up.
        with contextlib.suppress(OSError):
            stream.sendall(_HALF if kind == "half-open" else _RUBBISH)
        yield stream


def _is_answered(stream: socket.socket) -> bool:
    """Whether a message has come: more than ZeroMQ's own greeting of 64 bytes."""
    stream.setblocking(False)
    came = b""
    with contextlib.suppress(OSError):
        while data := stream.recv(1 << 16):
            came += data
    return len(came) > 64


def _stay(until: float) -> None:
    time.sleep(max(0.0, until - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--key", required=True)
    words = parser.parse_args()
    raise_limit()
    # A nice process takes a twentieth of a core from a busy one, and has to be waited for when that wakes up.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    given = KeyFolder(words.keys).client_keys(words.key)
    orders = Orders()
    while (order := orders.wait()) is not None:
        answer(come(words.server, given=given, **order))


if __name__ == "__main__":
    main()
