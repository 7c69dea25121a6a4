"""How far workers may be apart: `bsp`, `ssp:N` and `asp`.

    bsp     step s is computed on version s exactly: the run is the sequential one, whoever computes it
    ssp:N   step s is computed on a version >= s - N; steps are applied in order, so no gradient is more than N versions
            old when it is applied (Ho et al. 2013; the bounded delay of Li et al. 2014). `ssp:0` is bsp
    asp     each worker computes whole steps on the newest weights it can get; a step is applied when it arrives, in any
            order

Under bsp and ssp a step is split among the workers and applied once, when all of its microbatches are there; under asp
a step is one block.
"""

from dataclasses import dataclass

from ps_vae.errors import UsageError

__all__ = ["Consistency", "Versions", "parse_consistency"]


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions low, …, high of the weights; high = None: any newer one."""

    low: int
    high: int | None

    def __contains__(self, version: int) -> bool:
        return self.low <= version and (self.high is None or version <= self.high)

    def overlaps(self, other: "Versions") -> bool:
        """Whether some version is in both."""
        return (self.high is None or other.low <= self.high) and (other.high is None or self.low <= other.high)


@dataclass(frozen=True, slots=True)
class Consistency:
    """bound = how many versions old a gradient may be when it is applied; None: no bound (asp)."""

    bound: int | None

    @property
    def in_order(self) -> bool:
        """Whether steps are applied in their order."""
        return self.bound is not None

    def usable(self, step: int) -> Versions:
        """The versions on which `step` may be computed."""
        if self.bound is None:
            return Versions(0, None)
        return Versions(max(0, step - self.bound), None if self.bound else step)

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
