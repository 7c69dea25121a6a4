"""Strangers at a server's door, any number of them: who must not come in, and must not be noticed inside."""

import contextlib
import socket
from urllib.parse import urlsplit

import zmq

from ps_vae.ps.frames import decode, encode
from ps_vae.ps.messages import TO_CLIENT, Status
from ps_vae.ps.security.door import new_pair, use_keys
from ps_vae.ps.security.keys import ClientKeys

KINDS = ("no key", "unknown key", "given key", "wrong server", "rubbish", "half-open")
_RUBBISH = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(range(256)) * 16


@contextlib.contextmanager
def strangers(address, kind, count, server, key=None):
    """`count` of a kind, all at the door at once; yields what says whether one of them was ever answered.

    server  the servers' public key
    key     the pair of the kind "given key": a revoked one, say
    """
    with contextlib.ExitStack() as stack:
        if kind in ("rubbish", "half-open"):
            place = urlsplit(address)
            streams = [
                stack.enter_context(socket.create_connection((place.hostname, place.port))) for _ in range(count)
            ]
            for stream in streams:
                with contextlib.suppress(OSError):
                    # The greeting's first half, or nothing that it could be.
                    stream.sendall(b"\xff\0\0\0\0\0\0\0\x01\x7f\x03" if kind == "half-open" else _RUBBISH)
            yield lambda: False
            return
        context = stack.enter_context(zmq.Context())
        context.max_sockets = count + 8
        poller = zmq.Poller()
        for _ in range(count):
            dealer = stack.enter_context(context.socket(zmq.DEALER))
            dealer.linger = 0
            shown = _shown(kind, server, key)
            if shown is not None:
                use_keys(dealer, shown)
            dealer.connect(address)
            dealer.send_multipart(encode(Status()))
            poller.register(dealer, zmq.POLLIN)
        yield lambda: bool(poller.poll(0))


def _shown(kind, server, key):
    if kind == "no key":
        return None
    if kind == "wrong server":
        return ClientKeys(key or new_pair(), new_pair().public)
    return ClientKeys(key if kind == "given key" else new_pair(), server)


def answer_to(dealer, message, seconds):
    """The answer to a message, None where there is none."""
    dealer.send_multipart(encode(message))
    return decode(dealer.recv_multipart(), TO_CLIENT) if dealer.poll(1000 * seconds) else None
