"""The tables of communication.py, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from report import table

from exchange.breakdown import PARTS

__all__ = ["bytes_table", "grid_table", "model_table", "parts_table", "ratio_table", "time_table"]

Found = Mapping[int, Mapping[str, Mapping[str, Any]]]


def time_table(found: Found) -> str:
    """Medians by system and size; below it why one is missing."""
    rows = []
    for name in _names(found):
        medians = {title: _of(found, size, name, "seconds", "median") for size, title in _titles(found).items()}
        rows.append({"round trip, ms": name, **{t: v and 1e3 * v for t, v in medians.items()}})
    drawn = table(rows, {"round trip, ms": "", **dict.fromkeys(_titles(found).values(), ",.3f")})
    reasons = {name: row["why"] for systems in found.values() for name, row in systems.items() if row["why"]}
    return "\n".join([drawn, *(f"\nNo figure for {name}: {why}" for name, why in reasons.items())])


def ratio_table(found: Found) -> str:
    """Against raw pyzmq, with what the server does with the numbers and without it."""
    rows = []
    for name in _names(found):
        own = {title: _of(found, size, name, "of_pyzmq") for size, title in _titles(found).items()}
        rows.append({"times raw pyzmq": name, **own})
        moving = {title: _of(found, size, name, "moving_of_pyzmq") for size, title in _titles(found).items()}
        if any(value is not None for value in moving.values()):
            rows.append({"times raw pyzmq": "  moving alone", **moving})
    return table(rows, {"times raw pyzmq": "", **dict.fromkeys(_titles(found).values(), ".2f")})


def parts_table(found: Found) -> str:
    """Where the time goes, in milliseconds."""
    rows = []
    for name in _names(found):
        for size, title in _titles(found).items():
            parts = _of(found, size, name, "parts")
            if parts is not None:
                rows.append({"ms of an exchange": name, "parameters": title, **_milliseconds(parts)})
    return table(rows, {"ms of an exchange": "", "parameters": "", **dict.fromkeys((*PARTS, "in all"), ",.3f")})


def bytes_table(found: Found) -> str:
    """Bytes of an exchange against those of its tensors."""
    rows = []
    for name in _names(found):
        for size, title in _titles(found).items():
            counted = _of(found, size, name, "bytes")
            if counted is None:
                continue
            tensors, sockets, interface = (counted[key] for key in ("tensors", "sockets", "interface"))
            sent = sockets if sockets is not None else counted["counted"] - counted["shared"]
            rows.append(
                {
                    "bytes of an exchange": name,
                    "parameters": title,
                    "tensors": tensors,
                    "sent": sent,
                    "sent / tensors": sent / tensors,
                    "interface / tensors": interface and interface / tensors,
                    "read in place": counted["shared"] / counted["counted"],
                }
            )
    columns = {"bytes of an exchange": "", "parameters": "", "tensors": ",.0f", "sent": ",.0f"}
    return table(rows, {**columns, "sent / tensors": ".5f", "interface / tensors": ".5f", "read in place": ".1%"})


def grid_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Steps of several workers on several shards."""
    drawn = []
    for row in rows:
        drawn.append(
            {
                "parameters": f"{row['size']:,}",
                "transport": row["transport"],
                "workers": row["workers"],
                "shards": row["shards"],
            }
        )
        if row["why"] is None:
            drawn[-1] |= {"ms a step": 1e3 * row["seconds"], "pushed twice": row["twice"]}
            drawn[-1] |= {"sent / tensors": row["sent"] / row["tensors"]}
            drawn[-1] |= _milliseconds(row["parts"]) if row["parts"] else {}
    columns = {"parameters": "", "transport": "", "workers": "d", "shards": "d", "ms a step": ",.2f"}
    whole = table(drawn, {**columns, **dict.fromkeys(PARTS, ",.2f"), "sent / tensors": ".5f", "pushed twice": ".0%"})
    reasons = [f"\n{row['workers']} workers, {row['shards']} shards: {row['why']}" for row in rows if row["why"]]
    return "\n".join([whole, *reasons])


def model_table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The fitted costs, and what they say at each size beside what was measured, in milliseconds."""
    rows = []
    for name, model in models.items():
        row = {
            "time = latency + bytes / wire + bytes / apply": name,
            "latency, us": 1e6 * model["latency"],
            "wire, GB/s": 1e-9 / model["seconds_per_byte"] if model["seconds_per_byte"] else None,
            "apply, GB/s": 1e-9 / model["apply_per_byte"] if model["apply_per_byte"] else None,
        }
        for one in model["sizes"]:
            row[f"{one['size']:,}"] = f"{1e3 * one['fitted']:,.3f} for {1e3 * one['measured']:,.3f}"
        rows.append(row)
    titles = dict.fromkeys(f"{one['size']:,}" for model in models.values() for one in model["sizes"])
    columns = {"time = latency + bytes / wire + bytes / apply": "", "latency, us": ",.0f", "wire, GB/s": ".3f"}
    return table(rows, {**columns, "apply, GB/s": ".2f", **dict.fromkeys(titles, "")})


def _names(found: Found) -> list[str]:
    return list(dict.fromkeys(name for systems in found.values() for name in systems))


def _titles(found: Found) -> dict[int, str]:
    return {size: f"{size:,}" for size in found}


def _of(found: Found, size: int, name: str, *keys: str) -> Any:
    value: Any = found[size].get(name)
    for key in keys:
        value = None if value is None else value.get(key)
    return value


def _milliseconds(parts: Mapping[str, float]) -> dict[str, float]:
    return {**{part: 1e3 * parts[part] for part in PARTS}, "in all": 1e3 * sum(parts[part] for part in PARTS)}
