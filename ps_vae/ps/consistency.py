"""How far workers may be apart: `bsp`, `ssp:N` and `asp`.

    bsp     step s is computed on version s exactly, and applied once, when all of it is there: the run is the
            sequential one, whoever computes it. With a delay of 1 it is computed on version s - 1, while version s is
            still under way: the sequential run with gradients one step old, whoever computes it
    ssp:N   step s is computed on a version >= s - N: no gradient is more than N versions old when it is applied (Ho et
            al. 2013; the bounded delay of Li et al. 2014). `ssp:0` is bsp
    asp     step s is computed on the newest weights that a worker can get

Every step is split among the workers. Under ssp and asp each block is applied when it arrives, as that part of a step,
so that what others do while a worker computes adds up to less than a step, however many workers there are. The version
is the number of steps of which nothing is missing, counted from the first.
"""

from ps_vae.errors import UsageError
from ps_vae.ps.record import record

__all__ = ["Consistency", "Versions", "parse_consistency"]


@record
class Versions:
    """The versions low, …, high of the weights; high = None: any newer one."""

    low: int
    high: int | None

    def __contains__(self, version: int) -> bool:
        return self.low <= version and (self.high is None or version <= self.high)

    def overlaps(self, other: "Versions") -> bool:
        """Whether some version is in both."""
        return (self.high is None or other.low <= self.high) and (other.high is None or self.low <= other.high)


@record
class Consistency:
    """What workers may compute on.

    bound  how many versions old a gradient may be when it is applied; None: no bound (asp)
    delay  with a bound of 0: how many versions old it is
    first  the version that the servers began at: there is no older one
    """

    bound: int | None
    delay: int = 0
    first: int = 0

    @property
    def is_synchronous(self) -> bool:
        """Whether a step is applied as a whole."""
        return self.bound == 0

    def usable(self, step: int) -> Versions:
        """The versions on which `step` may be computed."""
        if self.bound is None:
            return Versions(0, None)
        if self.bound:
            return Versions(max(0, step - self.bound), None)
        version = max(self.first, step - self.delay)
        return Versions(version, version)

    @property
    def next_wanted(self) -> int:
        """How many steps after one that was pushed are those whose weights are to be asked for."""
        return 1 + self.delay

    def __str__(self) -> str:
        return "asp" if self.bound is None else f"ssp:{self.bound}" if self.bound else "bsp"


def parse_consistency(text: str) -> Consistency:
    """`bsp`, `asp` or `ssp:N`; anything else is a UsageError."""
    if text == "bsp":
        return Consistency(0)
    if text == "asp":
        return Consistency(None)
    kind, _, bound = text.partition(":")
    if kind == "ssp" and bound.isascii() and bound.isdigit() and len(bound) <= 6:
        return Consistency(int(bound))
    raise UsageError(f"--consistency {text} is not known; choose bsp, asp or ssp:N, N the steps workers may be apart")
