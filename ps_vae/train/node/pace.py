"""How fast a member is, by what it has done so far, and how long it is waited for."""

from dataclasses import dataclass

__all__ = ["Pace"]

# The newest measurement counts this much against what was known.
_NEWEST = 0.2
# A member that had no share forgets its slowness a little each time.
_FORGIVEN = 0.98
# So many times the expected time; a lease of the node itself has eight, and a second at least.
_PATIENCE = 4.0
_LEAST_PATIENCE_SECONDS = 0.25
_FIRST_PATIENCE_SECONDS = 5.0


@dataclass(slots=True)
class Pace:
    """seconds  a microbatch; None before the first was measured"""

    seconds: float | None = None

    def measured(self, seconds: float, microbatches: int) -> None:
        """The newest task took so long in all."""
        pace = max(seconds, 1e-9) / microbatches
        self.seconds = pace if self.seconds is None else (1 - _NEWEST) * self.seconds + _NEWEST * pace

    def had_no_share(self, fastest: float) -> None:
        """Let a member that is thought slow come back; to be as fast as another is all that is believed of it."""
        if self.seconds is not None:
            self.seconds = max(min(fastest, self.seconds), _FORGIVEN * self.seconds)

    def patience(self, microbatches: int) -> float:
        """Seconds after which a member that others wait for is believed to stand still."""
        if self.seconds is None:
            return _FIRST_PATIENCE_SECONDS
        return max(_LEAST_PATIENCE_SECONDS, _PATIENCE * self.seconds * microbatches)
