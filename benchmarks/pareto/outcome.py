"""From single runs to a row for each method, and from the rows to what is asked of them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from report import ratio, summary

from pareto.job import Job
from pareto.methods import DDP_DENSE, DENSE, Method
from pareto.results import Results, quality_key, speed_key

__all__ = ["LIMITS", "RATES", "SLOW", "UNSHAPED", "answers", "rows"]

UNSHAPED, SLOW = "unshaped", "100mbit"
RATES = (UNSHAPED, "1gbit", SLOW)

LIMITS = (0.3, 0.1)
"""Nats that a setting may lose."""

Row = dict[str, Any]


def rows(
    results: Results, methods: Mapping[str, Method], jobs: Sequence[Job], rates: Sequence[str], rounds: int
) -> dict[str, Row]:
    """What is said of each method on so many workers; None where it cannot be said.

    jobs  of the runs to the end, one a seed

    options            what the runs were told
    peer               not ours
    examples           that a run to the end trained on: mean over the seeds
    bytes_per_example  mean over the seeds
    of_dense           so many times fewer than dense
    elbo               of each seed; None where it failed
    mean, least, most  of those
    to_dense           mean over the seeds of ELBO - dense's ELBO with the same seed, in nats; `worst` is the least of
                       these differences
    pace               by rate: examples a second, median, least and most over the rounds
    rounds             by rate: the figure of each round
    why                the first reason why there is no figure
    """
    found = {name: _row(results, name, method, jobs, rates, rounds) for name, method in methods.items()}
    dense = found.get(DENSE)
    if dense is not None:
        for row in found.values():
            _compare(row, dense)
    return found


def answers(found: Mapping[str, Row]) -> dict[str, Any]:
    """What the rows say.

    within  by limit: the method of ours with the fewest bytes whose mean difference to dense is within it
    slow    of ours within the first limit the one with the most examples a second on the slow link: how many times its
            own unshaped figure, dense's unshaped figure, and DDP's on the slow link these are

    None where no method is within the limit, or was timed.
    """
    ours = {name: row for name, row in found.items() if not row["peer"] and row["to_dense"] is not None}
    within = {limit: {name: row for name, row in ours.items() if row["to_dense"] >= -limit} for limit in LIMITS}
    fewest = {
        limit: max((name for name, row in kept.items() if row["of_dense"]), key=_by(kept, "of_dense"), default=None)
        for limit, kept in within.items()
    }
    return {
        "within": {str(limit): name and _told(name, found[name]) for limit, name in fewest.items()},
        "slow": _slow(found, within[LIMITS[0]]),
    }


def _row(results: Results, name: str, method: Method, jobs: Sequence[Job], rates: Sequence[str], rounds: int) -> Row:
    whole = [results.answer(quality_key(name, method, job)) or {} for job in jobs]
    timed = {
        rate: [results.answer(speed_key(name, method, jobs[0], rate, number)) or {} for number in range(rounds)]
        for rate in rates
    }
    elbo = [answer.get("elbo") for answer in whole]
    known = [value for value in elbo if value is not None]
    spent = [answer["bytes"] / answer["examples"] for answer in whole if "bytes" in answer]
    trained = [answer["examples"] for answer in whole if "examples" in answer]
    figures = {rate: [answer.get("examples_per_second") for answer in given] for rate, given in timed.items()}
    given = [*whole, *(answer for several in timed.values() for answer in several)]
    return {
        "options": " ".join(method.words),
        "peer": method.is_peer,
        "examples": statistics.mean(trained) if trained else None,
        "bytes_per_example": statistics.mean(spent) if spent else None,
        "of_dense": None,
        "elbo": elbo,
        "mean": statistics.mean(known) if known else None,
        "least": min(known, default=None),
        "most": max(known, default=None),
        "to_dense": None,
        "worst": None,
        "pace": {rate: summary(several) for rate, several in figures.items()},
        "rounds": figures,
        "why": next((answer["failed"] for answer in given if "failed" in answer), None),
    }


def _compare(row: Row, dense: Row) -> None:
    if row["bytes_per_example"] and dense["bytes_per_example"]:
        row["of_dense"] = dense["bytes_per_example"] / row["bytes_per_example"]
    pairs = zip(row["elbo"], dense["elbo"], strict=True)
    apart = [own - other for own, other in pairs if own is not None and other is not None]
    if apart:
        row["to_dense"], row["worst"] = statistics.mean(apart), min(apart)


def _slow(found: Mapping[str, Row], kept: Mapping[str, Row]) -> Row | None:
    timed = {name: row for name, row in kept.items() if row["pace"].get(SLOW)}
    if not timed:
        return None
    name = max(timed, key=lambda one: timed[one]["pace"][SLOW]["median"])
    slow = timed[name]["rounds"][SLOW]
    return {
        **_told(name, timed[name]),
        "examples_per_second": timed[name]["pace"][SLOW]["median"],
        "of_own_unshaped": _times(slow, timed[name], UNSHAPED),
        "of_dense_unshaped": _times(slow, found.get(DENSE), UNSHAPED),
        "of_ddp": _times(slow, found.get(DDP_DENSE), SLOW),
    }


def _times(slow: Sequence[float | None], other: Row | None, rate: str) -> float | None:
    others = other["rounds"].get(rate) if other is not None else None
    return ratio(slow, others) if others is not None else None


def _told(name: str, row: Row) -> Row:
    return {"method": name, **{key: row[key] for key in ("options", "of_dense", "to_dense", "worst")}}


def _by(table: Mapping[str, Row], key: str) -> Any:
    return lambda name: table[name][key]
