"""Permits: what a worker shows with a push, to prove that the coordinator gave it that block.

    permit = BLAKE2b(session, ticket, step, start, stop; key = the run's secret), 16 bytes

The words are packed little endian, each with a width of its own: 16 bytes, uint64, uint64, uint32, uint32. Only servers
know the secret. Whoever has a permit got it from the coordinator, in the `work` that it is of, or from who did.

BLAKE2b with a key is a message authentication code: RFC 7693, section 2.9.
"""

import hashlib
import hmac
import struct

from ps_vae.ps.blocks import Block
from ps_vae.ps.messages import Push

__all__ = ["is_permitted", "permit"]

_PERMIT_BYTES = 16

_WORDS = struct.Struct("<16sQQII")


def permit(secret: bytes, session: bytes, ticket: int, step: int, block: Block) -> bytes:
    """For the session to push this block of a step as a part of its work with this ticket."""
    words = _WORDS.pack(session, ticket, step, block.start, block.stop)
    return hashlib.blake2b(words, digest_size=_PERMIT_BYTES, key=secret).digest()


def is_permitted(secret: bytes, push: Push) -> bool:
    """Whether a push carries the permit for what it says of itself."""
    expected = permit(secret, push.session, push.ticket, push.step, Block(push.start, push.stop))
    return push.permit is not None and hmac.compare_digest(push.permit, expected)
