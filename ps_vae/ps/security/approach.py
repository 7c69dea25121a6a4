"""How a client comes to a server's door: what it shows there, why it is not let in, when it knocks again. Pure.

the handshake fails, being   in the clear                              with keys
refused                      -                                         the key is not known there
full                         -                                         there is no room for another connection
of another mechanism         the server wants a key                    the server has none
broken off                   the second time: it may want a key        not the server whose key we have, or none
not answered in time         nothing: it stands still                  the same
anything else                it speaks another language                the same

Where the keys are for the case that they are asked for, the third and fourth row mean: from now on with keys, or in the
clear again, in turn. A server that wants a key may do either: its connection may be gone before its greeting is read.

A refusal is no end, for the operator may allow our key meanwhile. ZeroMQ itself tries again only after the fourth and
the fifth.
"""

import dataclasses

from ps_vae.ps.security.keys import ClientKeys

__all__ = ["BROKEN", "FULL", "MECHANISM", "OTHER", "REFUSED", "SILENT", "Approach"]

REFUSED, FULL, MECHANISM, BROKEN, SILENT, OTHER = "refused", "full", "mechanism", "broken", "silent", "other"
"""How a handshake fails."""

_KNOCK_AGAIN_SECONDS = 0.5


class Approach:
    """One client's way to one server.

    keys      what is shown now, and then insisted on; None: nothing
    refusal   why we were not let in the last time, a code and a text; None where we were, or nobody was there
    knock_at  when to connect again; None where ZeroMQ does so by itself
    """

    def __init__(self, address: str, keys: ClientKeys | None) -> None:
        self.keys = None if keys is not None and keys.if_asked else keys
        self.refusal: tuple[str, str] | None = None
        self.knock_at: float | None = None
        self._who = f"the server at {address}"
        self._spare = dataclasses.replace(keys, if_asked=False) if keys is not None and keys.if_asked else None
        self._broken = 0

    def opened(self) -> None:
        """We are in."""
        self.refusal = self.knock_at = None
        self._broken = 0

    def failed(self, failure: str, now: float) -> None:
        """The handshake failed; `keys` may be others now."""
        if failure == SILENT:
            return
        self._broken += failure == BROKEN
        if self._spare is not None and failure in (MECHANISM, BROKEN):
            # At once where they were not tried yet.
            self.knock_at = now if self.keys is None and self._broken < 2 else now + _KNOCK_AGAIN_SECONDS
            if failure == BROKEN and self.keys is not None:
                self.refusal = self._refused(failure)
            self.keys = self._spare if self.keys is None else None
            return
        if failure != BROKEN:
            self.knock_at = now + _KNOCK_AGAIN_SECONDS
        elif self.keys is None and self._broken < 2:
            return
        self.refusal = self._refused(failure)

    def _refused(self, failure: str) -> tuple[str, str]:
        if failure == REFUSED:
            shown = "" if self.keys is None else f" {self.keys.own.public}"
            return "unknown-key", f"{self._who} does not know the key{shown}: have its operator run `ps-vae keys allow`"
        if failure == FULL:
            return "full", f"{self._who} has as many connections as it may have"
        if failure == OTHER:
            return "protocol", f"{self._who} breaks off the handshake: it speaks another language"
        if failure == BROKEN and self.keys is None:
            text = f"{self._who} breaks off the handshake: if it wants a key, give the folder of yours with --keys"
            return "unknown-key", text
        if failure == BROKEN:
            text = f"{self._who} is not the one whose public key lies with our keys: copy that of its host"
            return "wrong-server", f"{text}; or it knows no keys"
        if self.keys is None:
            return "unknown-key", f"{self._who} lets in nobody without a key: give the folder of yours with --keys"
        return "no-keys", f"{self._who} knows no keys; it was started with --insecure, or for its own host alone"
