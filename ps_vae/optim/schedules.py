"""Learning rate and KL weight as functions of the server's step; nothing here remembers anything.

A learning-rate schedule is written as a short word:

    constant                 the rate
    cosine[:FINAL[:WARMUP]]  a half cosine from the rate down to FINAL times the rate (0 if left out) at the end of the
                             run; before it the rate grows linearly over WARMUP steps (0 if left out).
                             Loshchilov & Hutter (2017), equation 5, without restarts
    stages                   8 stages, stage i = 1..8 three times as long as the one before, at 10^(-(i-1)/7) of the
                             rate: Burda, Grosse & Salakhutdinov (2016), section 5, who start at 1e-3 and run 3^(i-1)
                             epochs each, 3,280 in all. Here the run's steps are divided in the same proportions
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ps_vae.errors import UsageError

__all__ = ["SCHEDULES", "Schedule", "beta_at", "schedule", "stage_starts"]

STAGES = 8


@dataclass(frozen=True, slots=True)
class Schedule:
    """A learning-rate schedule, built by `schedule`.

    shape   a word of `SCHEDULES`
    rate    the highest learning rate
    steps   steps of the whole run; after them the last rate goes on
    final   cosine: the fraction of `rate` at the end
    warmup  cosine: steps in which the rate grows to `rate`
    """

    shape: str
    rate: float
    steps: int
    final: float = 0.0
    warmup: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate of `step`, counted from 0."""
        return self.rate * SCHEDULES[self.shape](self, step)


def schedule(word: str, *, rate: float, steps: int) -> Schedule:
    """Parse `word` (see the table at the top) for a run of `steps` steps at learning rate `rate`.

    Raises UsageError for a word that is not in the table and for numbers that make no sense.
    """
    shape, *options = word.split(":")
    if shape not in SCHEDULES:
        raise UsageError(f"there is no learning-rate schedule {word!r}; choose one of {_WORDS}")
    if len(options) > (2 if shape == "cosine" else 0):
        raise UsageError(f"the learning-rate schedule {word!r} has too many parts; it is one of {_WORDS}")
    if not (math.isfinite(rate) and rate > 0.0):
        raise UsageError(f"the learning rate is {rate}; it has to be a positive number")
    if steps < 1:
        raise UsageError(f"the run has {steps} steps; it needs at least 1")
    try:
        final = float(options[0]) if options else 0.0
        warmup = int(options[1]) if len(options) > 1 else 0
    except ValueError as error:
        raise UsageError(f"{word!r}: {error}; write it like cosine:0.02:500") from error
    if not 0.0 <= final <= 1.0:
        raise UsageError(f"{word!r}: the final fraction is {final}; it has to be between 0 and 1")
    if not 0 <= warmup < steps:
        raise UsageError(f"{word!r}: {warmup} warm-up steps do not fit into a run of {steps} steps")
    return Schedule(shape, rate, steps, final, warmup)


def beta_at(step: int, *, beta: float, warmup_steps: int) -> float:
    """Weight of the KL term at `step`: linear from 0 at step 0 to `beta` at step `warmup_steps`, `beta` from there on.

    Sonderby et al. (2016), section 2.3. `warmup_steps` 0: `beta` at once.
    """
    return beta if step >= warmup_steps else beta * step / warmup_steps


def stage_starts(steps: int) -> tuple[int, ...]:
    """First step of each of the 8 stages in a run of `steps` steps; in a very short run the first ones coincide."""
    # stage i starts after 1 + 3 + ... + 3^(i-1) = (3^i - 1) / 2 of the (3^8 - 1) / 2 parts; rounded up, in integers
    parts = 3**STAGES - 1
    return tuple(-(-steps * (3**i - 1) // parts) for i in range(STAGES))


def _constant(plan: Schedule, step: int) -> float:
    return 1.0


def _cosine(plan: Schedule, step: int) -> float:
    if step < plan.warmup:
        return (step + 1) / (plan.warmup + 1)
    progress = min(1.0, (step - plan.warmup) / (plan.steps - plan.warmup))
    return plan.final + (1.0 - plan.final) * 0.5 * (1.0 + math.cos(math.pi * progress))


def _stages(plan: Schedule, step: int) -> float:
    stage = bisect_right(stage_starts(plan.steps), step) - 1
    return float(10.0 ** (-stage / (STAGES - 1)))


SCHEDULES: Mapping[str, Callable[[Schedule, int], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "stages": _stages,
}

_WORDS = "constant, cosine, cosine:FINAL, cosine:FINAL:WARMUP, stages"
