"""Keys as plain data, and the text that they are written as.

A key is 32 bytes of Curve25519 (CurveZMQ, ZeroMQ RFC 26). As text it has 40 characters of Z85 (RFC 32): four bytes, the
first the highest, make five digits of base 85.
"""

import dataclasses
from collections.abc import Callable

from ps_vae.ps.record import record

__all__ = ["SERVER", "ClientKeys", "KeyPair", "ServerKeys", "is_key", "z85"]

SERVER = "server"
"""The name of the pair that every server of a run has, and that nobody else may have."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}


@record
class KeyPair:
    """A public key and the secret that goes with it, as text. The secret is never shown."""

    public: str
    secret: str = dataclasses.field(repr=False)


@record
class ClientKeys:
    """What a client shows, and whom it believes.

    own        its pair
    server     the public key that the server has to have
    if_asked   speak in the clear at first, and use keys where the server wants them: for addresses of this host
    """

    own: KeyPair
    server: str
    if_asked: bool = False


@record
class ServerKeys:
    """What a server shows, and whom it lets in.

    own      the servers' pair; whoever has it may join as a shard
    name_of  the name under which a public key is allowed, None where it is not; called often, and on two threads
    """

    own: KeyPair
    name_of: Callable[[str], str | None]

    @property
    def shown(self) -> ClientKeys:
        """What one server shows to another one of its run."""
        return ClientKeys(self.own, self.own.public)

    def admits(self, public: str) -> str | None:
        """The name of whom this key lets in; None where it lets nobody in."""
        return SERVER if public == self.own.public else self.name_of(public)


def z85(data: bytes) -> str:
    """Bytes, a multiple of four, as text."""
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes; Z85 writes multiples of four")
    numbers = (int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4))
    return "".join(_DIGITS[number // 85**place % 85] for number in numbers for place in (4, 3, 2, 1, 0))


def is_key(text: str) -> bool:
    """Whether the text is that of 32 bytes."""
    if len(text) != 40 or not _VALUES.keys() >= set(text):
        return False
    groups = (text[at : at + 5] for at in range(0, 40, 5))
    return all(sum(_VALUES[digit] * 85 ** (4 - place) for place, digit in enumerate(g)) < 1 << 32 for g in groups)
