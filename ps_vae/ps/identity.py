"""Who a server is to the others of its run."""

from ps_vae.ps.record import record

__all__ = ["FIRST", "ServerIdentity"]


@record
class ServerIdentity:
    """A server.

    session  16 bytes that it drew
    address  where clients and servers reach it
    """

    session: bytes
    address: str


# The shard in the coordinator's own process.
FIRST = ServerIdentity(bytes(16), "")
