"""What followers say to their leaders and the coordinator, and what these say to them."""

from typing import ClassVar

from ps_vae.ps.fields import ListOf, Nullable, Text
from ps_vae.ps.frames import header_field, tensors
from ps_vae.ps.messages.values import COUNT, ID, METRICS, SMALL, Tensors
from ps_vae.ps.record import record

__all__ = ["Copy", "Follow", "Lead", "Replicate", "Replicated", "Standby"]

_COPIED = ListOf(Text(64), 17)


@record
class Lead:
    """Coordinator -> server: you lead this shard, as this incarnation of it.

    gone  the following that is known to be over; else nil
    """

    KIND: ClassVar[str] = "lead"
    run: bytes = header_field("run", ID)
    shard: int = header_field("i", SMALL)
    incarnation: int = header_field("ic", COUNT)
    gone: bytes | None = header_field("g", Nullable(ID))


@record
class Follow:
    """Follower -> leader: send me your state, and from then on what you apply. Sent again until it is answered.

    following  16 bytes drawn for this time
    """

    KIND: ClassVar[str] = "follow"
    run: bytes = header_field("run", ID)
    shard: int = header_field("i", SMALL)
    following: bytes = header_field("f", ID)


@record
class Copy:
    """Leader -> follower: its whole state at a version.

    updates  how many updates made it
    tensors  the slice, each array of the optimizer's state, and what is published besides, in the order of `names`
    """

    KIND: ClassVar[str] = "copy"
    following: bytes = header_field("f", ID)
    version: int = header_field("v", COUNT)
    updates: int = header_field("u", COUNT)
    metrics: tuple[float, ...] = header_field("m", METRICS)
    names: tuple[str, ...] = header_field("o", _COPIED)
    payload: Tensors = tensors(17)


@record
class Replicate:
    """Leader -> follower: the step after `version`, which is published once you have it.

    tensor  the sum of its gradients, or what the run takes in its place: the one vector that the update is made with
    """

    KIND: ClassVar[str] = "replicate"
    following: bytes = header_field("f", ID)
    version: int = header_field("v", COUNT)
    metrics: tuple[float, ...] = header_field("m", METRICS)
    payload: Tensors = tensors(1)


@record
class Replicated:
    """Follower -> leader: I have all that makes this version. Sent again every second."""

    KIND: ClassVar[str] = "replicated"
    following: bytes = header_field("f", ID)
    version: int = header_field("v", COUNT)


@record
class Standby:
    """Follower -> coordinator: I am there. Sent again every second.

    following  what it is following, since the version `since` of the copy that it got; nil before it has one
    """

    KIND: ClassVar[str] = "standby"
    run: bytes = header_field("run", ID)
    shard: int = header_field("i", SMALL)
    session: bytes = header_field("s", ID)
    following: bytes | None = header_field("f", Nullable(ID))
    since: int = header_field("b", COUNT)
    version: int = header_field("v", COUNT)
