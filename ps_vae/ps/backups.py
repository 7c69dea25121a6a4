"""Which work is late, and who could do it too.

Under bsp a step waits for its slowest worker. With backups the work of one that takes longer than expected is given to
another too, one that is idle or waits for weights; whoever is done first is done, and shards drop what comes second. A
worker that is backed is not waited for: others take its shares until it is back.

Dean & Barroso 2013, "The tail at scale". Chen et al. 2016, "Revisiting distributed synchronous SGD", have backups work
on every step, and drop what the last workers do: here every example counts.
"""

from collections.abc import Iterable, Sequence

from ps_vae.ps.members import Client
from ps_vae.ps.work import Lease, StepWork

__all__ = ["helper_for", "late_work"]

# How many times longer than expected, and how much longer, work takes that is given to another too.
_SLOW = 1.5
_SLOW_SECONDS = 0.02


def late_work(works: Iterable[StepWork], workers: Sequence[Client], now: float) -> list[tuple[StepWork, Lease, Client]]:
    """Leases that take longer than expected and that nobody else has too, with their step and their worker."""
    busy = {worker.lease: worker for worker in workers if worker.lease is not None}
    usual = _usual_pace(workers)
    late = []
    for work in works:
        backed = {backup.backs for backup in work.backups.values()}
        for lease in work.leases.values():
            worker = busy.get(lease.ticket)
            if worker is None or lease.began is None or usual is None or lease.ticket in backed:
                continue
            expected = (worker.pace or usual) * lease.microbatches
            if now - lease.began > max(_SLOW * expected, expected + _SLOW_SECONDS):
                late.append((work, lease, worker))
    return late


def helper_for(work: StepWork, lease: Lease, free: Iterable[Client], now: float) -> Client | None:
    """The fastest of these, if it is expected to take less time for the late lease than that has taken.

    free  workers that do nothing that could be waited for
    """
    waited = 0.0 if lease.began is None else now - lease.began
    faster = [
        worker
        for worker in free
        if worker.session not in (lease.session, *work.failed)
        and worker.pace is not None
        and worker.pace * lease.microbatches < waited
    ]
    return min(faster, key=lambda worker: worker.pace or 0.0, default=None)


def _usual_pace(workers: Sequence[Client]) -> float | None:
    """Seconds a microbatch, the mean of what is known of these workers; None where nothing is."""
    known = [worker.pace for worker in workers if worker.pace is not None]
    return sum(known) / len(known) if known else None
