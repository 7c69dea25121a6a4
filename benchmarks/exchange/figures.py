"""From the answers of a contest to figures: medians, ratios to raw pyzmq, parts of the time, bytes, cost models."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from report import ratio, summary

from exchange import cost_model
from exchange.breakdown import Exchange, Parts, handled, split, typical
from exchange.contest import PYZMQ

__all__ = ["figures", "models"]

Answer = dict[str, Any]


def figures(size: int, answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """Of each system at one size; None where it cannot be said.

    seconds          of a round trip: median, least and most over the rounds, of each round's median
    rounds           that median in each round
    of_pyzmq         times as long as raw pyzmq takes: median over the rounds of the ratio; pyzmq_least and pyzmq_most
                     are the ratio's extremes
    moving_of_pyzmq  the same of ours without what the server does with the numbers, which pyzmq does not do
    parts            of a typical exchange of ours, in seconds, see `breakdown`
    bytes            an exchange: of its tensors; of the sockets that carried them, with ZeroMQ's framing, both ways, by
                     the kernel's count, None where the sockets are not TCP; through the interface, the headers of TCP
                     and IP and everybody else's traffic included, least of all rounds; by ps_vae's own count, and how
                     much of that was read in shared memory
    why              there is no figure
    """
    rounds = {name: [_seconds(burst) for burst in answer["bursts"]] for name, answer in answers.items()}
    reference = rounds.get(PYZMQ, [])
    found: dict[str, Answer] = {}
    for name, answer in answers.items():
        own = rounds[name]
        comparable = len(own) == len(reference) > 0
        ratios = [a / b for a, b in zip(own, reference, strict=True)] if comparable else []
        found[name] = {
            "seconds": summary(own),
            "rounds": own,
            "of_pyzmq": ratio(own, reference) if comparable else None,
            "pyzmq_least": min(ratios, default=None),
            "pyzmq_most": max(ratios, default=None),
            "moving_of_pyzmq": None,
            "parts": None,
            "bytes": None,
            "why": answer["why"],
        }
        if "left" in answer and own:
            parts = [_parts(burst, answer["left"]) for burst in answer["bursts"]]
            whole = typical([one for burst in parts for one in burst])
            found[name]["parts"] = asdict(whole) if whole is not None else None
            moving = [statistics.median(one.total - one.apply for one in burst) if burst else None for burst in parts]
            found[name]["moving_of_pyzmq"] = ratio(moving, reference) if comparable else None
            found[name]["bytes"] = _bytes(size, answer)
    return found


def models(found: Mapping[int, Mapping[str, Answer]]) -> dict[str, Answer]:
    """The cost model of each system, and what it says beside what was measured at each size.

    found  what `figures` makes of each size
    """
    names = list(dict.fromkeys(name for systems in found.values() for name in systems))
    fitted: dict[str, Answer] = {}
    for name in names:
        sizes = [size for size, systems in found.items() if systems.get(name, {}).get("seconds")]
        totals = [found[size][name]["seconds"]["median"] for size in sizes]
        applies = [(found[size][name]["parts"] or {}).get("apply", 0.0) for size in sizes]
        model = cost_model.fit([8.0 * size for size in sizes], totals, applies)
        if model is not None:
            said = [
                {"size": size, "measured": total, "fitted": model.seconds(8.0 * size)}
                for size, total in zip(sizes, totals, strict=True)
            ]
            fitted[name] = {**asdict(model), "sizes": said}
    return fitted


def _seconds(burst: Answer) -> float:
    return statistics.median(burst["ns"]) / 1e9


def _parts(burst: Answer, left: Answer) -> list[Parts]:
    pushes = handled(left["pushes"])
    rows = [Exchange(row[0], tuple(row[1]), *row[2:]) for row in burst["exchanges"]]
    return [parts for row in rows if (parts := split(row, [pushes])) is not None]


def _bytes(size: int, answer: Answer) -> Answer:
    counts = [len(burst["exchanges"]) for burst in answer["bursts"]]
    sockets = [(burst["sent"] + burst["received"]) / n for burst, n in zip(answer["bursts"], counts, strict=True)]
    interface = [burst["interface"] / n for burst, n in zip(answer["bursts"], counts, strict=True)]
    left = answer["left"]
    return {
        "tensors": 8 * size,
        "sockets": statistics.median(sockets) or None,
        "interface": min(interface) if any(sockets) else None,
        "counted": (left["pushed"] + left["pulled"]) / max(1, left["count"]),
        "shared": left["shared"] / max(1, left["count"]),
    }
