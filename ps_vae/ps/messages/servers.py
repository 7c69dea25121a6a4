"""What servers that have a shard, or want one, and the coordinator say to each other."""

from typing import ClassVar

from ps_vae.ps.fields import Boolean, Each, ListOf, Nullable, Text
from ps_vae.ps.frames import extra_field, header_field, tensors
from ps_vae.ps.messages.values import CODE, CONFIG, COUNT, ID, METRICS, MICROBATCH, NAMES, SMALL, Tensors
from ps_vae.ps.record import record

__all__ = ["Admit", "Applied", "Join", "Present", "Snapshot", "TakeSnapshot", "Who"]


@record
class Join:
    """Server -> coordinator: I can be a shard, reached at `address`. Sent again until it is answered.

    follows  it wants to follow a leader; else it wants a shard that nobody has
    """

    KIND: ClassVar[str] = "join"
    protocol: int = header_field("p", SMALL)
    session: bytes = header_field("s", ID)
    address: str = header_field("a", Text(256))
    follows: bool = header_field("f", Boolean())


@record
class Admit:
    """Coordinator -> server: you are this shard; here are your weights and your optimizer's state.

    first    the version that the servers began at
    leader   where the leader is that it is to follow; empty: where the coordinator is
    incarnation  of the shard that its leader is
    tensors  of one that leads: the slice at `version`, then each array of `names`, the optimizer's state
    secret   what permits are made with, where the run has them; else empty
    """

    KIND: ClassVar[str] = "admit"
    run: bytes = header_field("run", ID)
    config: bytes = header_field("c", CONFIG)
    shard: int = header_field("i", SMALL)
    start: int = header_field("a", COUNT)
    stop: int = header_field("z", COUNT)
    microbatches: int = header_field("m", MICROBATCH)
    steps: int = header_field("n", COUNT)
    bound: int | None = header_field("b", Nullable(COUNT))
    delay: int = header_field("d", SMALL)
    milestone: int = header_field("ms", COUNT)
    first: int = header_field("f", COUNT)
    leader: str = header_field("l", Text(256))
    incarnation: int = header_field("ic", COUNT)
    version: int = header_field("v", COUNT)
    names: tuple[str, ...] = header_field("o", NAMES)
    payload: Tensors = tensors(17)
    secret: bytes = extra_field("sc", ID, b"", is_shown=False)


@record
class Applied:
    """Shard -> coordinator: which steps are in the weights: all below `before`, and those `beyond` it.

    pushed, pulled  bytes so far, to and from the shard
    shared          how many of both were not sent, but read in shared memory
    dense           how many the pushes and their answers had been if nothing were encoded
    incarnation     of the shard that this leader is
    follower        the following (see `follow`) that has all that is published here; nil: nobody is waited for
    leaving         the following that is to be over as soon as the coordinator says so; else nil
    refused         `[code, count]` of the messages that its server refused so far
    blamed          `[session, ticket, code]` of the newest pieces of work whose gradient could not be used
    session         of the server; zeros for the shard in the coordinator's process
    metrics         of the newest step, from the first shard; the others leave them out
    duplicates      pushes so far of which nothing was new

    Sent after every step and once a second; the latest says all.
    """

    KIND: ClassVar[str] = "applied"
    run: bytes = header_field("run", ID)
    shard: int = header_field("i", SMALL)
    before: int = header_field("v", COUNT)
    beyond: tuple[int, ...] = header_field("y", ListOf(COUNT))
    pushed: int = header_field("in", COUNT)
    pulled: int = header_field("out", COUNT)
    shared: int = header_field("sh", COUNT)
    dense: int = header_field("de", COUNT)
    incarnation: int = header_field("ic", COUNT)
    follower: bytes | None = header_field("f", Nullable(ID))
    leaving: bytes | None = header_field("l", Nullable(ID))
    refused: tuple[tuple[str, int], ...] = header_field("re", ListOf(Each((CODE, COUNT)), 64), ())
    blamed: tuple[tuple[bytes, int, str], ...] = header_field("bl", ListOf(Each((ID, COUNT, CODE)), 64), ())
    session: bytes = header_field("s", ID, bytes(16))
    metrics: tuple[float, ...] = header_field("m", METRICS, ())
    duplicates: int = header_field("du", COUNT, 0)


@record
class Who:
    """Coordinator -> server of a run that it does not know (any more): who are you?"""

    KIND: ClassVar[str] = "who"
    run: bytes = header_field("run", ID)


@record
class Present:
    """Server -> coordinator: this is who I am. What it has to say of its shard follows.

    incarnation  of the shard: that it leads as, or that its leader was when it began to follow
    leader       address of the leader that it follows; empty for the coordinator's, or where it leads
    """

    KIND: ClassVar[str] = "present"
    run: bytes = header_field("run", ID)
    shard: int = header_field("i", SMALL)
    session: bytes = header_field("s", ID)
    address: str = header_field("a", Text(256))
    leads: bool = header_field("ld", Boolean())
    incarnation: int = header_field("ic", COUNT)
    leader: str = header_field("l", Text(256))


@record
class TakeSnapshot:
    """Coordinator -> shard: send a snapshot of `version`, now or as soon as you are there."""

    KIND: ClassVar[str] = "take-snapshot"
    version: int = header_field("v", COUNT)


@record
class Snapshot:
    """Shard -> coordinator: its whole state at `version`: the weights, then each array of `names`."""

    KIND: ClassVar[str] = "snapshot"
    run: bytes = header_field("run", ID)
    shard: int = header_field("i", SMALL)
    version: int = header_field("v", COUNT)
    metrics: tuple[float, ...] = header_field("m", METRICS)
    names: tuple[str, ...] = header_field("o", NAMES)
    payload: Tensors = tensors(17)
