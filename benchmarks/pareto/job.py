"""A run that is measured: its size, how long it trains, and how often it can be looked at."""

from dataclasses import dataclass

__all__ = ["PARAMETERS", "Job", "dense_bytes", "exchanges", "steps_together"]

PARAMETERS = 652_824
"""Of 784-400-20-400-784."""

# A guess that is good enough to know how many steps take part of a second.
_EXAMPLES_PER_SECOND = 50_000.0
_LOOK_SECONDS, _MOST_STEPS = 0.3, 100


@dataclass(frozen=True, slots=True)
class Job:
    """What all methods do alike.

    data     as `ps-vae --data` takes it
    workers  each on a host of its own; the server has another
    rows     of a worker in a step
    seed     of the run
    epochs   of a run to the end; None: it is timed
    seconds  that a timed run is looked at
    hidden, latent  the model
    """

    data: str
    workers: int
    rows: int = 128
    seed: int = 0
    epochs: float | None = None
    seconds: float = 5.0
    hidden: int = 400
    latent: int = 20

    @property
    def batch(self) -> int:
        return self.workers * self.rows


def dense_bytes(rows: int, local_steps: int = 1) -> float:
    """Bytes an example of weights pulled and gradients pushed as they are, once for so many steps of `rows` rows."""
    return 2 * 4 * PARAMETERS / (rows * local_steps)


def exchanges(job: Job, local_steps: int, train_rows: int) -> int | None:
    """How many a run to the end has: whole ones, and at least one, so that none sees more rows than its epochs hold.

    None for a timed run.
    """
    if job.epochs is None:
        return None
    return max(1, int(job.epochs * train_rows / (job.batch * local_steps)))


def steps_together(job: Job, local_steps: int, bytes_per_example: float, bits_per_second: float | None) -> int:
    """Exchanges that take about a third of a second on a link of this rate; None: unshaped."""
    examples = job.batch * local_steps
    seconds = examples / _EXAMPLES_PER_SECOND
    if bits_per_second is not None:
        seconds += 8 * examples * bytes_per_example / bits_per_second
    return max(1, min(_MOST_STEPS, int(_LOOK_SECONDS / seconds)))
