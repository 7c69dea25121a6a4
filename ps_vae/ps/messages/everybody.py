"""What anybody may say or be told."""

from typing import ClassVar

from ps_vae.ps.fields import Binary, Boolean, Text
from ps_vae.ps.frames import header_field
from ps_vae.ps.messages.values import CODE
from ps_vae.ps.record import record

__all__ = ["Error", "Meet", "Share", "State", "Status", "Stop"]


@record
class Status:
    """Anybody -> coordinator: how is it going?"""

    KIND: ClassVar[str] = "status"


@record
class State:
    """Coordinator -> asker: how it is going, as JSON text."""

    KIND: ClassVar[str] = "state"
    json: bytes = header_field("j", Binary(60 * 1024))


@record
class Stop:
    """Coordinator -> everybody: the run is over (or failed, and why)."""

    KIND: ClassVar[str] = "stop"
    failed: bool = header_field("f", Boolean())
    reason: str = header_field("e", Text(2048))


@record
class Error:
    """Anybody: your message was refused, and nothing changed."""

    KIND: ClassVar[str] = "error"
    code: str = header_field("c", CODE)
    text: str = header_field("e", Text(2048))


@record
class Share:
    """Client -> server: if we are on one host, let us read each other's tensors where they lie."""

    KIND: ClassVar[str] = "share"


@record
class Meet:
    """Server -> client: come to this local socket with this word; the name is empty where nothing is shared."""

    KIND: ClassVar[str] = "meet"
    name: bytes = header_field("n", Binary(107))
    word: bytes = header_field("w", Binary(16))
