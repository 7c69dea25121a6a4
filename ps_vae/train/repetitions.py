"""Warnings that come again and again: the first is said at once, the others are counted and said in one line.

Whoever can reach a server can have it warn as often as he likes; a log that he fills hides what else happens.
"""

from dataclasses import dataclass

from ps_vae.lines import INFO, Line

__all__ = ["Repetitions"]

_SECONDS = 30.0
# What comes after so many kinds at a time is counted by its event alone.
_KINDS = 256


@dataclass(slots=True)
class _Kind:
    """Since when it is counted, how many came since, and the newest of them."""

    since: float
    count: int = 0
    newest: Line | None = None


class Repetitions:
    """What is said of lines that are like one that was said a short while ago.

    Like one another are warnings and errors of the same event about the same member, or with the same code.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def heard(self, line: Line, now: float) -> list[Line]:
        """The line, if it is news; it is counted if it is not."""
        if line.level == INFO:
            return [line]
        kind = (line.event, str(line.fields.get("code") or line.fields.get("name") or ""))
        if kind not in self._kinds and len(self._kinds) >= _KINDS:
            kind = (line.event, "")
        known = self._kinds.get(kind)
        if known is None:
            self._kinds[kind] = _Kind(now)
            return [line]
        known.count, known.newest = known.count + 1, line
        return []

    def due(self, now: float) -> list[Line]:
        """Call from time to time: of each kind that came again one line, at most every 30 seconds."""
        over = [kind for kind, known in self._kinds.items() if now - known.since >= _SECONDS]
        return self._told(over, now)

    def rest(self, now: float) -> list[Line]:
        """What is counted and not said yet, at the end."""
        return self._told(list(self._kinds), now)

    def _told(self, kinds: list[tuple[str, str]], now: float) -> list[Line]:
        lines = []
        for kind in kinds:
            known = self._kinds.pop(kind)
            if known.newest is not None:
                lines.append(_summary(known.newest, known.count, now - known.since))
                # It goes on: the next one is no news either.
                self._kinds[kind] = _Kind(now)
        return lines


def _summary(newest: Line, count: int, seconds: float) -> Line:
    if count == 1:
        return newest
    fields = {**newest.fields, "line": str(newest), "times": count, "seconds": round(seconds, 1)}
    return Line(newest.event, "{line} ({times:,} like it in {seconds:g} s)", level=newest.level, **fields)
