"""A coordinator's server watches the other servers of its run: their processes end, or cannot be reached."""

from collections.abc import Iterator, Mapping
from typing import Any

import zmq

from ps_vae.ps.addresses import connectable
from ps_vae.ps.connection import Connection
from ps_vae.ps.security.keys import ClientKeys

__all__ = ["Watching"]

# A server whose connection is down for longer is gone: a process that ends closes it, and one that is there takes the
# next at once. One that has not been reached yet has longer.
_GONE_SECONDS = 0.5
_UNREACHED_SECONDS = 5.0


class Watching:
    """Connections to other servers that nothing is sent on.

    keys  what is shown to them
    """

    def __init__(self, context: zmq.Context[Any], keys: ClientKeys | None) -> None:
        self._context, self._keys = context, keys
        self._watched: dict[bytes, _Watched] = {}

    def gone(self, servers: Mapping[bytes, str]) -> Iterator[bytes]:
        """Those of the servers, addresses by session, that are gone. Call it often; others are not watched any more."""
        for session in self._watched.keys() - servers.keys():
            self._watched.pop(session).connection.close(0.0)
        for session, address in servers.items():
            if session not in self._watched:
                self._watched[session] = _Watched(Connection(connectable(address), self._context, keys=self._keys))
            if self._watched[session].is_gone():
                yield session

    def close(self) -> None:
        for watched in self._watched.values():
            watched.connection.close(0.0)
        self._watched.clear()


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
