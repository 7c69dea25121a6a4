"""Several workers and shards: a synchronous run goes its way for a while, and its exchanges are taken apart."""

import statistics
import time
from typing import Any

from exchange.breakdown import Exchange, handled, split, typical
from exchange.contest import Place
from exchange.stub_run import StubRun
from exchange.stub_server import Task

__all__ = ["steps_of"]

_SKIP = 10
_SECONDS = 240.0
_POLL_SECONDS = 0.02


def steps_of(
    place: Place, size: int, workers: int, shards: int, transport: str, count: int, compute_seconds: float
) -> dict[str, Any]:
    """`count` steps of each worker.

    seconds    median of a step
    parts      of a typical one, see `breakdown`
    tensors    bytes of gradients and weights that were exchanged
    sent       bytes that the workers' TCP sockets carried meanwhile, by the kernel's count; where there are none, bytes
               that were not read in shared memory, by ps_vae's
    shared     how much of the servers' traffic was read there
    reissued   pieces of work that were given out again, because a lease had ended
    twice      share of all pushes that were dropped: of those, what came after all
    """
    task = Task(size, shards, workers, transport=transport)
    servers, clients = place.servers[:shards], place.clients[:workers]
    with StubRun(
        task, workers, variables=place.variables, servers=servers, clients=clients, compute_seconds=compute_seconds
    ) as run:
        while run.sample()["workers"] < workers:
            time.sleep(_POLL_SECONDS)
        answers = run.exchange(count, skip=_SKIP, go_on=True, timeout=_SECONDS)
        left = run.stop()
    rows = [Exchange(row[0], tuple(row[1]), *row[2:]) for answer in answers for row in answer["exchanges"]]
    pushes = [handled(server["pushes"]) for server in left]
    taken = [parts for row in rows if (parts := split(row, pushes)) is not None]
    whole = typical(taken)
    tensors = 4 * size * (sum(len(row.starts) for row in rows) + sum(map(_pulls, answers)))
    sent = sum(answer["sent"] + answer["received"] for answer in answers)
    if not sent:
        counted = sum(server["pushed"] + server["pulled"] for server in left)
        sent = round(tensors * (1.0 - sum(server["shared"] for server in left) / counted))
    return {
        "seconds": statistics.median([row.ended - row.begun for row in rows]) / 1e9,
        "parts": whole,
        "tensors": tensors,
        "sent": sent,
        "shared": sum(server["shared"] for server in left),
        "reissued": left[0]["reissued"],
        "twice": sum(server["duplicates"] for server in left) / max(1, sum(server["count"] for server in left)),
    }


def _pulls(answer: dict[str, Any]) -> int:
    """Weights that a worker has got: a version a step, also of one that it had no share in."""
    steps = [row[0] for row in answer["exchanges"]]
    return int(steps[-1]) - int(steps[0]) + 1
