"""What a server with keys does before it serves: it knocks at its own door, as those do who must not come in.

ZeroMQ lets in whoever has any pair of keys where nobody answers who may, and whoever has none where the socket was not
told to want them; neither shows while all goes well.
"""

import time

import zmq
import zmq.utils.monitor

from ps_vae.errors import SecurityError
from ps_vae.ps.security.door import new_pair, use_keys
from ps_vae.ps.security.keys import ClientKeys, KeyPair

__all__ = ["rehearse"]

_SECONDS = 10.0
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


def rehearse(address: str, own: KeyPair) -> None:
    """Knock at the server that is bound at `address` and whose pair is `own`.

    Raises SecurityError where a stranger is let in, with a key or with none, or the servers' own key is not.
    """
    if _knock(address, ClientKeys(new_pair(), own.public)):
        raise SecurityError(f"{address} lets in a key that nobody has allowed; nothing is served")
    if _knock(address, None):
        raise SecurityError(f"{address} lets in who has no key; nothing is served")
    if not _knock(address, ClientKeys(own, own.public)):
        raise SecurityError(f"{address} does not let in the servers' own key; nothing is served")


def _knock(address: str, keys: ClientKeys | None) -> bool:
    """Whether the door opens."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, 1)
        if keys is not None:
            use_keys(socket, keys)
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILED)
        socket.connect(address)
        try:
            return _opens(monitor, address)
        finally:
            socket.disable_monitor()
            monitor.close(linger=0)


def _opens(monitor: zmq.Socket[bytes], address: str) -> bool:
    end = time.monotonic() + _SECONDS
    while (left := end - time.monotonic()) > 0:
        if monitor.poll(round(1000 * left)):
            return zmq.utils.monitor.recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
    raise SecurityError(f"{address} does not answer a connection from this host; nothing is served")
