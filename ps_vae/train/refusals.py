"""How many messages were refused, by why."""

__all__ = ["OTHER", "Refusals"]

OTHER = "other"
# The codes of our own refusals are a few; but a peer that refuses something sends a code of its own choice.
_KINDS = 48


class Refusals:
    """Counts by code; what comes after 48 kinds of them counts as OTHER."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, code: str) -> None:
        """One more."""
        known = code if code in self._counts or len(self._counts) < _KINDS else OTHER
        self._counts[known] = self._counts.get(known, 0) + 1

    @property
    def counts(self) -> dict[str, int]:
        """By code, in order of the codes."""
        return dict(sorted(self._counts.items()))
