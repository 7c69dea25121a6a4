"""The workers that will come for their share of a step, and how fast they are together.

Kept as sums, so that a share costs the same however many workers there are.
"""

from collections.abc import Iterator

from ps_vae.ps.members import Client

__all__ = ["Crew"]


class Crew:
    """Workers, and the sums of what is known of their speed.

    Invariant: the sums are those of the paces that `put` was told last.
    """

    def __init__(self) -> None:
        self._workers: dict[bytes, tuple[Client, float | None]] = {}
        self._known = 0
        self._paces = 0.0
        self._speeds = 0.0

    def __len__(self) -> int:
        return len(self._workers)

    def __contains__(self, worker: Client) -> bool:
        return worker.session in self._workers

    def __iter__(self) -> Iterator[Client]:
        return iter([worker for worker, _ in self._workers.values()])

    @property
    def usual_pace(self) -> float:
        """Seconds a microbatch, the mean of those that are known; 1 where none is."""
        return self._paces / self._known if self._known else 1.0

    def put(self, worker: Client) -> bool:
        """The worker is one of them, at the pace that it has now. Whether that is news."""
        known, pace = self._workers.get(worker.session, (None, None))
        if known is worker and pace == worker.pace:
            return False
        self.drop(worker)
        self._workers[worker.session] = worker, worker.pace
        if worker.pace is not None:
            self._count(worker.pace, 1)
        return True

    def drop(self, worker: Client) -> None:
        """It is not, or not any more."""
        _, pace = self._workers.pop(worker.session, (worker, None))
        if pace is not None:
            self._count(pace, -1)

    def speed_without(self, others: "Crew", usual_pace: float) -> float:
        """Microbatches a second of those who are not in `others`, who all are in this crew."""
        known = self._speeds - others._speeds
        unknown = len(self) - self._known - (len(others) - others._known)
        # What rounding leaves of the sums is no speed.
        return max(known + unknown / usual_pace, 1e-9)

    def _count(self, pace: float, times: int) -> None:
        self._known += times
        if self._known == 0:
            self._paces = self._speeds = 0.0
        else:
            self._paces += times * pace
            self._speeds += times / pace
