"""A coordinator's server watches the other servers of its run: their processes end, or cannot be reached."""

from collections.abc import Iterator, Mapping
from typing import Any

import zmq

from ps_vae.ps.addresses import connectable, on_host
from ps_vae.ps.connection import Connection
from ps_vae.ps.security.keys import ClientKeys

__all__ = ["Watching"]

# A server whose connection is down for longer is gone: a process that ends closes it, and one that is there takes the
# next at once. One that has not been reached yet has longer.
_GONE_SECONDS = 0.5
_UNREACHED_SECONDS = 5.0


class Watching:
    """Connections to other servers that nothing is sent on.

    here  where this server listens
    keys  what is shown to the others
    """

    def __init__(self, here: str, keys: ClientKeys | None) -> None:
        # Not the clients': all sockets of a context stand still while the name of a host is looked up.
        self._context: zmq.Context[Any] = zmq.Context()
        self._here, self._keys = here, keys
        self._watched: dict[bytes, _Watched] = {}

    def gone(self, servers: Mapping[bytes, str]) -> Iterator[bytes]:
        """Those of the servers, addresses by session, that are gone. Call it often; others are not watched any more."""
        for session in self._watched.keys() - servers.keys():
            self._watched.pop(session).connection.close(0.0)
        for session, address in servers.items():
            if session not in self._watched:
                there = connectable(on_host(address, self._here))
                self._watched[session] = _Watched(Connection(there, self._context, keys=self._keys))
            if self._watched[session].is_gone():
                yield session

    def close(self) -> None:
        for watched in self._watched.values():
            watched.connection.close(0.0)
        self._watched.clear()
        self._context.term()


class _Watched:
    """One of them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._was_there = False

    def is_gone(self) -> bool:
        self.connection.watch()
        down = self.connection.seconds_down
        self._was_there = self._was_there or down == 0.0
        return down > (_GONE_SECONDS if self._was_there else _UNREACHED_SECONDS)
