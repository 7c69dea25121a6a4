"""How often things have happened, by kind."""

__all__ = ["OTHER", "Counts"]

OTHER = "other"
# Our own kinds are a few; but a peer that refuses a message of ours sends a code of its own choice.
_KINDS = 48


class Counts:
    """Counts by kind; what comes after 48 kinds counts as OTHER."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, kind: str) -> None:
        """One more."""
        known = kind if kind in self._counts or len(self._counts) < _KINDS else OTHER
        self._counts[known] = self._counts.get(known, 0) + 1

    def by_kind(self) -> dict[str, int]:
        """In order of the kinds."""
        return dict(sorted(self._counts.items()))
