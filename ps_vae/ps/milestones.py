"""Milestones and what evaluators say about them."""

from ps_vae.ps.messages import Milestone, Report
from ps_vae.ps.outbox import MilestoneReached, Output, Send, Sender, Told
from ps_vae.ps.roster import Roster
from ps_vae.ps.rules import RunRules

__all__ = ["Milestones"]


class Milestones:
    """The newest milestone that every shard has reached, which they keep for the evaluators until the next.

    Invariant: an evaluator's figures of a version are told once.
    """

    def __init__(self, rules: RunRules, roster: Roster, version: int) -> None:
        self._rules = rules
        self._roster = roster
        self._newest = version

    @property
    def message(self) -> Milestone:
        return Milestone(self._newest, self._newest == self._rules.steps)

    def advance(self, lowest: int) -> list[Output]:
        """Every shard is at `lowest` now; tell evaluators where that passes a milestone."""
        newest = self._rules.newest_milestone(lowest)
        if newest <= self._newest:
            return []
        self._newest = newest
        return [MilestoneReached(newest), *(Send(client.sender, self.message) for client in self._roster.evaluators)]

    def report(self, sender: Sender, report: Report, now: float) -> list[Output]:
        """Figures, or a sign of life; an evaluator that missed the newest milestone is told again."""
        evaluator = self._roster.find(report.session, "evaluator", now)
        evaluator.sender, evaluator.warming = sender, False
        outputs: list[Output] = []
        # What lies ahead is of a server before this one, which had come further, or of nobody.
        if report.version is not None and evaluator.reported < report.version <= self._newest:
            evaluator.reported = report.version
            outputs += [Told(report.version, report.values)] if report.values else []
        if evaluator.reported < self._newest:
            outputs.append(Send(sender, self.message))
        return outputs
