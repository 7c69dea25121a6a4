"""Who is let in: the answer to a question of ZeroMQ's authentication protocol (ZAP, RFC 27). Pure.

question   version "1.0", request id, domain, address, routing id, mechanism, credentials: for CURVE the 32 bytes of the
           client's public key
answer     version, request id, status "200", "400" or "500", a text, the user's id, metadata

The user's id is the key as text; ZeroMQ gives it with every message of the connection.
"""

from collections.abc import Sequence

from ps_vae.ps.record import record
from ps_vae.ps.security.keys import ServerKeys, z85

__all__ = ["DOMAIN", "FULL", "Verdict", "judge"]

DOMAIN = b"ps-vae"
FULL = b"500"
"""The status by which a client knows that it is not for its key's sake that it has to wait."""

_VERSION = b"1.0"
_MECHANISM = b"CURVE"


@record
class Verdict:
    """The frames of the answer; and of who was refused, from where and why.

    code  "" where it was let in, otherwise one of `unknown-key`, `full`, `malformed`
    """

    reply: tuple[bytes, ...]
    code: str
    address: str = ""
    text: str = ""


def judge(question: Sequence[bytes], keys: ServerKeys, *, is_full: bool = False) -> Verdict:
    """Let in whose key is known, as long as there is room; everybody else is refused.

    is_full  whether there are as many connections as there may be
    """
    request = question[1] if len(question) > 1 else b""
    if len(question) != 7 or question[0] != _VERSION or question[2] != DOMAIN or question[5] != _MECHANISM:
        return _refusal(request, b"500", "malformed", "", "a question that is none")
    address = question[3].decode(errors="replace")
    if len(question[6]) != 32:
        return _refusal(request, b"400", "malformed", address, f"a key of {len(question[6])} bytes")
    public = z85(question[6])
    if keys.admits(public) is None:
        return _refusal(request, b"400", "unknown-key", address, f"the key {public} is not allowed")
    if is_full:
        return _refusal(request, FULL, "full", address, "there are as many connections as there may be")
    return Verdict((_VERSION, request, b"200", b"", public.encode(), b""), "", address)


def _refusal(request: bytes, status: bytes, code: str, address: str, text: str) -> Verdict:
    return Verdict((_VERSION, request, status, code.encode(), b"", b""), code, address, text)
