"""How many updates others make while a gradient is computed, in a run that applies pushes as they arrive."""

from ps_vae.ps.outbox import Sender

__all__ = ["Lag"]

# How fast the mean follows; how many times the usual lag a gradient may have and still count in full; and what the mean
# is told at most beyond that: one worker that was held up for a second does not make the others any later.
_NEWEST = 0.02
_TOLERANCE = 1.0
_SURPRISE = 2.0
# Senders that are remembered, those that were sent weights last: one that is gone need not be heard of again.
_MOST = 1 << 14


class Lag:
    """Measures from the weights that a sender gets to its next push.

    mean  over the last fifty pushes or so
    """

    def __init__(self) -> None:
        self.mean = 0.0
        self._sent_at: dict[Sender, int] = {}

    def weights_sent(self, sender: Sender, updates: int) -> None:
        """The sender gets weights that hold so many updates."""
        self._sent_at.pop(sender, None)
        self._sent_at[sender] = updates
        if len(self._sent_at) > _MOST:
            del self._sent_at[next(iter(self._sent_at))]

    def trust_in_push(self, sender: Sender, updates: int) -> float:
        """1, or less for a gradient that far more updates have overtaken than usual."""
        lag = updates - self._sent_at.get(sender, updates)
        self.mean += _NEWEST * (min(lag, _TOLERANCE * self.mean + _SURPRISE) - self.mean)
        return min(1.0, (1.0 + _TOLERANCE * self.mean) / (1.0 + lag))

    def forget(self, sender: Sender) -> None:
        """The sender is gone."""
        self._sent_at.pop(sender, None)
