"""Where a server listens: a bound ROUTER socket, with its door."""

import errno

import zmq

from ps_vae.errors import Unreachable
from ps_vae.ps import sockets
from ps_vae.ps.addresses import connectable, plain
from ps_vae.ps.census import Census
from ps_vae.ps.frames import HEADER_LIMIT
from ps_vae.ps.intake import Intake
from ps_vae.ps.security.door import OVERHEAD, Door
from ps_vae.ps.security.keys import ClientKeys, ServerKeys
from ps_vae.ps.security.rehearsal import rehearse

__all__ = ["Endpoint"]


class Endpoint:
    """A bound ROUTER socket.

    keys  who is let in; without them everybody is, and nothing is encrypted

    Raises Unreachable where the address cannot be bound, SecurityError where a stranger is let in who should not be.
    """

    def __init__(self, listen: str, frame_limit: int, keys: ServerKeys | None = None) -> None:
        sockets.check_address(listen, is_bound=True)
        if sockets.is_served(listen):
            raise Unreachable(f"cannot listen on {listen}: another server does; give another address to --listen")
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.keys = keys
        sockets.configure_router(self.socket, frame_limit + (OVERHEAD if keys is not None else 0))
        self.census = Census(self.context, self.socket)
        self.door = Door(self.context, self.socket, keys, self.census) if keys is not None else None
        self._file: tuple[int, int] | None = None
        self.intake = Intake(sockets.MAX_FRAMES * max(frame_limit, HEADER_LIMIT))
        try:
            self.socket.bind(listen)
        except zmq.ZMQError as error:
            self.close()
            why = "the port is in use" if error.errno == errno.EADDRINUSE else str(error)
            raise Unreachable(f"cannot listen on {listen}: {why}; give another address to --listen") from None
        self.address = plain(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))
        self._file = sockets.socket_file(self.address)
        if keys is not None:
            try:
                rehearse(connectable(self.address), keys.own)
            except BaseException:
                self.close()
                raise

    @property
    def shown(self) -> ClientKeys | None:
        """What this server shows to others of its run."""
        return None if self.keys is None else self.keys.shown

    def close(self, linger_seconds: float = 0.0) -> None:
        """May be called again."""
        if self.door is None and not self.socket.closed:
            self.socket.disable_monitor()
            self.census.close()
        sockets.close(self.socket, linger_seconds=linger_seconds)
        if self.door is not None:
            self.door.close()
        self.context.term()
        if self._file is not None:
            sockets.remove_socket_file(self.address, self._file)
