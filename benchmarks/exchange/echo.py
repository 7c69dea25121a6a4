"""Raw pyzmq: two processes that exchange a header and a tensor, with nothing around it.

    python -m exchange.echo server tcp://127.0.0.1:*       answers {"address"}
    python -m exchange.echo client ADDRESS                 order {"size", "count"}; answer {"ns": of each exchange}

DEALER and ROUTER, one I/O thread each, blocking calls, `copy=False` for the tensor both ways and `np.frombuffer` on the
frame, as pyzmq's documentation sends NumPy arrays. The client pushes `size` float32; the server answers with as many of
its own. Neither looks at what came.

    order {"touch": true}    both write what they send and read what has come, as somebody has to in a training
"""

import argparse
import functools
import os
import sys
import threading
from typing import Any

import numpy as np
import zmq

from exchange.turns import Orders, answer, timed

__all__ = ["client", "serve"]

_HEADER = b"quiet" + bytes(59)
_TOUCH = b"touch" + bytes(59)
_LONGEST_MILLISECONDS = 300_000


def serve(listen: str) -> None:
    """Answer whoever comes, until standard input ends."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(listen)
    answer({"address": socket.getsockopt_string(zmq.LAST_ENDPOINT)})
    threading.Thread(target=_end_with_input, daemon=True).start()
    weights: dict[int, Any] = {}
    while True:
        _answer_one(socket, weights)


def client(address: str) -> None:
    """Exchange as ordered, until the orders end."""
    socket = zmq.Context().socket(zmq.DEALER)
    # Of a server that is gone nothing comes any more; waiting with a limit costs nothing measurable.
    socket.setsockopt(zmq.RCVTIMEO, _LONGEST_MILLISECONDS)
    socket.connect(address)
    orders = Orders()
    while (order := orders.wait()) is not None:
        gradient = np.ones(order["size"], np.float32)
        exchange = functools.partial(_exchange, socket, gradient, touches=order.get("touch", False))
        answer({"ns": timed(exchange, order["count"])})


def _answer_one(socket: Any, weights: dict[int, Any]) -> None:
    sender = socket.recv()
    header = socket.recv()
    gradient = np.frombuffer(socket.recv(copy=False), np.float32)
    if gradient.size not in weights:
        weights[gradient.size] = np.ones(gradient.size, np.float32)
    if header == _TOUCH:
        np.copyto(weights[gradient.size], gradient)
    socket.send(sender, zmq.SNDMORE)
    socket.send(header, zmq.SNDMORE)
    socket.send(weights[gradient.size], copy=False)


def _exchange(socket: Any, gradient: Any, *, touches: bool) -> None:
    if touches:
        gradient.fill(1.0)
    socket.send(_TOUCH if touches else _HEADER, zmq.SNDMORE)
    socket.send(gradient, copy=False)
    socket.recv()
    weights = np.frombuffer(socket.recv(copy=False), np.float32)
    if touches:
        weights.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=("server", "client"))
    parser.add_argument("address")
    words = parser.parse_args()
    if words.role == "server":
        serve(words.address)
    else:
        client(words.address)
        # The context would wait for a server that is gone.
        sys.stdout.flush()
        os._exit(0)


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
