"""Which process of a run's servers is what, as their own log lines tell it (--log-format json)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["COORDINATOR", "FOLLOWER", "LEADER", "Role", "roles"]

COORDINATOR, LEADER, FOLLOWER = "coordinator", "leader", "follower"


@dataclass(frozen=True, slots=True)
class Role:
    """What a process is.

    kind   COORDINATOR: the first server, which holds shard 1 too; LEADER: of another shard; FOLLOWER
    shard  counted from 1
    """

    kind: str
    shard: int


def roles(lines: Iterable[Mapping[str, Any]]) -> dict[int, Role]:
    """The newest role of each process by its id, also of those that have ended."""
    found: dict[int, Role] = {}
    for line in lines:
        match line["event"]:
            case "run":
                found[line["process"]] = Role(COORDINATOR, 1)
            case "joined":
                kind = FOLLOWER if "as follower of shard" in line["message"] else LEADER
                found[line["process"]] = Role(kind, line["shard"])
            case "leading":
                found[line["process"]] = Role(LEADER, line["shard"])
    return found
