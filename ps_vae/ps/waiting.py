"""Who waits for which versions of a shard's weights."""

from collections.abc import Iterator

from ps_vae.ps.outbox import Sender
from ps_vae.ps.publication import Want

__all__ = ["Waiting"]


class Waiting:
    """The wants of each sender, in the order in which they came.

    delay  how many may stand beside the newest of a sender; any older one is replaced
    """

    def __init__(self, delay: int) -> None:
        self._delay = delay
        self._wants: dict[Sender, list[Want]] = {}

    def __iter__(self) -> Iterator[tuple[Sender, Want]]:
        return iter([(sender, want) for sender, wants in self._wants.items() for want in wants])

    def add(self, sender: Sender, want: Want) -> None:
        """The sender waits for this too."""
        self._wants[sender] = [*self._beside(sender, want), want]

    def remove(self, sender: Sender, want: Want) -> None:
        """It has got that, and with it all that the want replaces."""
        others = self._beside(sender, want)
        if others:
            self._wants[sender] = others
        else:
            self._wants.pop(sender, None)

    def forget(self, sender: Sender) -> None:
        """The sender is gone."""
        self._wants.pop(sender, None)

    def _beside(self, sender: Sender, want: Want) -> list[Want]:
        if self._delay == 0:
            return []
        return [other for other in self._wants.get(sender, ()) if other.versions != want.versions][-self._delay :]
