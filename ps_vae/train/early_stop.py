"""The decision to end a run early: made once, whatever evaluators tell afterwards, and kept in metrics.jsonl.

An evaluator may be busy with a later version when it is made, and find that one better: that is the best one then, and
the run is over all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ps_vae.train.best import Best

__all__ = ["EARLY_STOP", "EarlyStop"]

EARLY_STOP = "stopped-early"
"""The kind of its line."""


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """
    version   that was evaluated last when it was made
    patience  that was at its end
    reason    in a sentence
    """

    version: int
    patience: int
    reason: str

    @staticmethod
    def due(best: Best, patience: int) -> "EarlyStop | None":
        """What is to be decided now."""
        return EarlyStop(best.newest, patience, best.sentence()) if best.is_over(patience) else None

    @staticmethod
    def told(lines: Sequence[dict[str, Any]], patience: int) -> "EarlyStop | None":
        """What these lines say was decided, and holds for a run of this patience: with more, or 0, it goes on."""
        for line in lines:
            if line["kind"] == EARLY_STOP and 0 < patience <= line["patience"]:
                return EarlyStop(line["version"], line["patience"], line["reason"])
        return None

    @staticmethod
    def of(lines: Sequence[dict[str, Any]], patience: int) -> "EarlyStop | None":
        """What a run of this patience and with these lines of metrics.jsonl has ended for, or would end for at once."""
        return EarlyStop.told(lines, patience) or EarlyStop.due(Best.of(lines), patience)

    @property
    def line(self) -> dict[str, Any]:
        """Of metrics.jsonl."""
        return {"kind": EARLY_STOP, "version": self.version, "patience": self.patience, "reason": self.reason}
