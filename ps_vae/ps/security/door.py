"""ZeroMQ's side of the keys: options of sockets, and the doorkeeper, a thread that answers who may come in.

It is a thread of its own because a server may be busy for longer than somebody at the door waits.
"""

import errno
import threading
from collections import deque
from typing import Any

import zmq

from ps_vae.ps.census import Census
from ps_vae.ps.record import record
from ps_vae.ps.security import policy
from ps_vae.ps.security.approach import BROKEN, FULL, MECHANISM, OTHER, REFUSED, SILENT
from ps_vae.ps.security.keys import ClientKeys, KeyPair, ServerKeys
from ps_vae.ps.security.policy import DOMAIN, Verdict, judge

__all__ = ["OVERHEAD", "Door", "TurnedAway", "failure_of", "new_pair", "pair_of", "use_keys", "use_no_keys"]

OVERHEAD = 64
"""Bytes by which an encrypted frame may be longer than what is in it (33, RFC 26)."""

_CONNECTIONS = 4_096
_REMEMBERED = 16


def new_pair() -> KeyPair:
    """A new pair, from the system's random numbers."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def pair_of(secret: str) -> KeyPair:
    """The pair that a secret belongs to."""
    return KeyPair(zmq.curve_public(secret.encode()).decode(), secret)


def use_keys(socket: zmq.Socket[bytes], keys: ClientKeys) -> None:
    """Have a client's connections that are made from now on encrypted, and both sides proven."""
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.own.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret.encode())
    socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server.encode())


def failure_of(event: int, detail: int) -> str:
    """What a socket's monitor says about a handshake that failed, in one of the words of `approach`."""
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return FULL if detail == int(policy.FULL) else REFUSED
    if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        # The detail is errno: of a connection that was closed, or of one on which nothing has come.
        return SILENT if detail == errno.EAGAIN else BROKEN
    return MECHANISM if detail == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH else OTHER


def use_no_keys(socket: zmq.Socket[bytes]) -> None:
    """Have a client's connections that are made from now on in the clear."""
    socket.setsockopt(zmq.CURVE_SERVER, 0)


@record
class TurnedAway:
    """Connections that were refused: how many since this was asked last, and the newest of them."""

    count: int
    newest: Verdict


class Door:
    """The doorkeeper of one bound socket, who also keeps its census. Made before the socket is bound; ends with the
    socket's context.

    Where the thread is not there, nobody comes in: the socket insists on an answer.
    """

    def __init__(self, context: zmq.Context[Any], socket: zmq.Socket[bytes], keys: ServerKeys, census: Census) -> None:
        self._keys = keys
        self._census = census
        self._refused = 0
        self._newest: deque[Verdict] = deque(maxlen=_REMEMBERED)
        self._questions = context.socket(zmq.REP)
        self._questions.bind("inproc://zeromq.zap.01")
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        # Without it anybody with a key of any kind would be let in where no doorkeeper answers.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._thread = threading.Thread(target=self._run, name="doorkeeper", daemon=True)
        self._thread.start()

    def turned_away(self) -> TurnedAway | None:
        """Whom it has refused since this was asked last."""
        if not self._newest:
            return None
        count, self._refused = self._refused, 0
        newest = self._newest[-1]
        self._newest.clear()
        return TurnedAway(count, newest)

    def close(self) -> None:
        """Call before the context is terminated, which ends the thread."""
        if not self._thread.is_alive():
            # Not sooner: ZeroMQ's own thread would wait for somebody to take its events.
            self._census.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._questions, zmq.POLLIN)
        poller.register(self._census.events, zmq.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                if self._census.events in ready:
                    self._census.note()
                if self._questions in ready:
                    self._answer()
        except zmq.ContextTerminated:
            self._census.close()
        finally:
            self._questions.close(linger=0)

    def _answer(self) -> None:
        verdict = judge(self._questions.recv_multipart(), self._keys, is_full=len(self._census.open) > _CONNECTIONS)
        self._questions.send_multipart(verdict.reply)
        if verdict.code:
            self._refused += 1
            self._newest.append(verdict)
