"""How tensors travel between two processes: through a socket, or through memory that both map."""

from ps_vae.errors import UsageError
from ps_vae.ps.sharing.segment import Segment, is_possible

__all__ = ["PUBLISHED", "TRANSPORTS", "check_transport", "open_segment"]

TRANSPORTS = {
    "auto": "shared memory between processes of one host, a socket otherwise",
    "shm": "shared memory; refuse where it cannot be",
    "tcp": "a socket, always",
}
"""What a user may say, and what it means."""


PUBLISHED = 16
"""Slots of a server's segment: a few versions that are kept, and those that clients still compute on."""


def check_transport(transport: str) -> str:
    """The word itself. Raises UsageError where there is no such transport."""
    if transport not in TRANSPORTS:
        raise UsageError(f"--transport {transport}: there are {', '.join(TRANSPORTS)}")
    return transport


def open_segment(slots: int, size: int, transport: str) -> Segment | None:
    """A segment of `slots` vectors of `size`, or None where tensors travel through sockets.

    Raises UsageError where shared memory is insisted on and this system has none.
    """
    if check_transport(transport) == "tcp" or size == 0:
        return None
    if not is_possible():
        why = "it needs Linux with /proc"
    else:
        try:
            return Segment.create(slots, size)
        except OSError as error:
            why = error.strerror or str(error)
    if transport == "shm":
        raise UsageError(f"--transport shm: this system gives no shared memory ({why}); use auto or tcp")
    return None
