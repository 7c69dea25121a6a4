"""Which refusals are told to people: of each kind a few at once, and then how many more there were.

Whoever wants to can send thousands of messages a second that are refused. Each is answered and counted (`refusals`);
a line for each would fill the disk, and take the time of the run.
"""

from dataclasses import dataclass, field, replace

from ps_vae.ps.outbox import Refused

__all__ = ["Complaints"]

_PERIOD_SECONDS = 5.0
_TOLD_AT_ONCE = 3
# What peers call their errors is theirs to choose.
_CODES, _OTHERS = 64, ""


@dataclass(slots=True)
class _Kind:
    """told at once in this period; beyond: how many more; newest of these."""

    told: int = 0
    beyond: int = 0
    newest: Refused | None = None


@dataclass(slots=True)
class Complaints:
    """The account of one period after the other.

    Invariant: of every refusal it is told by whom, or it is counted in a later one of its kind.
    """

    _since: float = float("-inf")
    _kinds: dict[str, _Kind] = field(default_factory=dict)

    def is_told(self, refused: Refused) -> bool:
        """Whether this one is told at once."""
        is_known = refused.code in self._kinds or len(self._kinds) < _CODES
        kind = self._kinds.setdefault(refused.code if is_known else _OTHERS, _Kind())
        if kind.told < _TOLD_AT_ONCE:
            kind.told += 1
            return True
        kind.beyond, kind.newest = kind.beyond + 1, refused
        return False

    def due(self, now: float) -> list[Refused]:
        """What has to be told about those that were not, once a period."""
        if now - self._since < _PERIOD_SECONDS:
            return []
        late = [kind for kind in self._kinds.values() if kind.newest is not None]
        self._since, self._kinds = now, {}
        return [_summary(kind.newest, kind.beyond) for kind in late if kind.newest is not None]


def _summary(newest: Refused, count: int) -> Refused:
    if count == 1:
        return newest
    return replace(newest, text=f"{newest.text} (the last of {count} more in {_PERIOD_SECONDS:g} s)")
