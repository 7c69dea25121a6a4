"""What a server refused: how often for each reason, and whose gradients it could not use.

A refusal is answered to the sender, which an honest worker passes on as `trouble`. The coordinator has to know of it
where the worker says nothing, too: the account travels with every `applied`, so that the latest one says all.
"""

__all__ = ["UNUSABLE", "Refusals"]

UNUSABLE = ("not-finite", "bad-payload", "bad-size")
"""Codes of pushes whose sender computed, or wrote, something that is no gradient."""

# Of the newest pieces of work. Whoever invents sessions can push others out of the account, and is no member itself.
_KEPT = 64


class Refusals:
    """The account of one server process.

    Invariants: counts never decrease; of each piece of work the first code is kept.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._blamed: dict[tuple[bytes, int], str] = {}

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """`(code, count)` of each code, the first refused first."""
        return tuple(self._counts.items())

    @property
    def blamed(self) -> tuple[tuple[bytes, int, str], ...]:
        """`(session, ticket, code)` of the newest pieces of work with a push that could not be used."""
        return tuple((session, ticket, code) for (session, ticket), code in self._blamed.items())

    def count(self, code: str) -> None:
        """A message was refused."""
        self._counts[code] = self._counts.get(code, 0) + 1

    def blame(self, session: bytes, ticket: int, code: str) -> bool:
        """A push could not be used; whether that is news of its piece of work."""
        if (session, ticket) in self._blamed:
            return False
        self._blamed[session, ticket] = code
        while len(self._blamed) > _KEPT:
            del self._blamed[next(iter(self._blamed))]
        return True
