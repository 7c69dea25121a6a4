"""Which version an evaluator found best, and for how long none was better."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Best"]


@dataclass(slots=True)
class Best:
    """Of what evaluators told, in the order of versions. Version 0, of which there is no checkpoint, is never best.

    version  with the highest validation ELBO so far, the first of equals; None while there is none
    elbo     that one's, in nats per example
    since    versions told after it, 0 not counted; those that were no number are
    newest   version that was told; -1: none yet
    """

    version: int | None = None
    elbo: float = -math.inf
    since: int = 0
    newest: int = -1

    @staticmethod
    def of(lines: Iterable[Mapping[str, Any]]) -> "Best":
        """As the lines of metrics.jsonl say; figures without an ELBO are none."""
        best = Best()
        for line in lines:
            if line["kind"] == "validation":
                best.told(line["version"], line.get("elbo", math.nan))
        return best

    def told(self, version: int, elbo: float) -> None:
        """An evaluator's figure. NaN is never an improvement."""
        self.newest = version
        if version == 0:
            return
        if elbo > self.elbo:
            self.version, self.elbo, self.since = version, elbo, 0
        else:
            self.since += 1

    def is_over(self, patience: int) -> bool:
        """Whether so many evaluations in a row were no better; 0: for ever patient."""
        return 0 < patience <= self.since

    def sentence(self) -> str:
        """Why a run is over."""
        if self.version is None:
            return f"stopped early: none of {self.since} evaluations was a number"
        what = f"{self.elbo:.3f} nats at version {self.version:,}"
        return f"stopped early: no better validation ELBO than {what} in {self.since} evaluations"
