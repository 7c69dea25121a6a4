"""What happens next, in virtual time. Events of one moment happen in the order in which they were planned."""

import heapq
import itertools
from collections.abc import Callable

Action = Callable[[], None]


class Agenda:
    """Actions by the time at which they are due."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Action]] = []
        self._order = itertools.count()

    def at(self, time: float, action: Action) -> None:
        """Do `action` at `time`, or now where that has passed."""
        heapq.heappush(self._due, (max(time, self.now), next(self._order), action))

    def next(self) -> Action | None:
        """The next action, and its time is now; None where there is none."""
        if not self._due:
            return None
        self.now, _, action = heapq.heappop(self._due)
        return action

    @property
    def next_time(self) -> float:
        return self._due[0][0] if self._due else float("inf")
