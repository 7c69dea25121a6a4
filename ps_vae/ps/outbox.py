"""What a state machine returns: messages to send, and events for whoever watches.

The coordinator and the shards address each other by role and everybody else by the sender that the message came from
(on the wire a ROUTER's routing id), so that the machines work the same in one process, between processes and in a
simulation.
"""

from collections.abc import Hashable

from ps_vae.ps.messages import Message, Snapshot
from ps_vae.ps.record import record

__all__ = [
    "COORDINATOR",
    "Event",
    "Member",
    "MilestoneReached",
    "Output",
    "Refused",
    "RunEnded",
    "Send",
    "Sender",
    "ShardAddress",
    "SnapshotTaken",
    "StepApplied",
    "Told",
]

Sender = Hashable


@record
class ShardAddress:
    """The address of a shard, by number."""

    shard: int


COORDINATOR = "coordinator"


@record
class Send:
    """Send `message` to `to`."""

    to: Sender
    message: Message


@record
class StepApplied:
    """All of `step` is in a shard's weights; metrics are summed over the step's examples.

    version    how many whole steps are in the weights now, in whatever order they came
    staleness  versions between the weights and the oldest gradient in the step
    """

    step: int
    version: int
    staleness: int
    metrics: tuple[float, ...]


@record
class Member:
    """A worker came or went; `change` says how, in a word, and `why` in a sentence."""

    name: str
    change: str
    why: str = ""


@record
class Refused:
    """A message was refused."""

    who: str
    code: str
    text: str


@record
class MilestoneReached:
    """Every shard has applied all steps below `version`."""

    version: int


@record
class SnapshotTaken:
    """Every shard's part of one version is here, in the order of the shards."""

    version: int
    parts: tuple[Snapshot, ...]


@record
class Told:
    """An evaluator reported figures about a version."""

    version: int
    values: tuple[tuple[str, float], ...]


@record
class RunEnded:
    """Everybody was told to stop: the last snapshot is taken, or the run failed."""

    failed: bool
    reason: str


Event = StepApplied | Member | Refused | MilestoneReached | SnapshotTaken | Told | RunEnded
Output = Send | Event
