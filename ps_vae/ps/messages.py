"""The messages of the protocol, one dataclass each; `PROTOCOL.md` shows the same tables.

A run is named by 16 random bytes, drawn anew each time that its first server starts, and a session by 16 bytes that its
client chose. Steps, versions and microbatches are 0-based.
"""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ps_vae.ps.fields import Binary, Boolean, Each, Integer, ListOf, Nullable, Number, Span, Text
from ps_vae.ps.frames import header_field, tensors
from ps_vae.ps.record import record

__all__ = [
    "PROTOCOL",
    "TO_CLIENT",
    "TO_SERVER",
    "Admit",
    "Applied",
    "Bye",
    "Copy",
    "Error",
    "Follow",
    "Hello",
    "Join",
    "Lead",
    "Meet",
    "Message",
    "Milestone",
    "Moved",
    "Pull",
    "Push",
    "Ready",
    "Replicate",
    "Replicated",
    "Report",
    "Share",
    "Snapshot",
    "Standby",
    "State",
    "Status",
    "Stop",
    "TakeSnapshot",
    "Trouble",
    "Weights",
    "Welcome",
    "Work",
]

PROTOCOL = 4

Tensors = tuple[npt.NDArray[np.float32], ...]
Range = tuple[int, int | None]

_ID = Binary(16, 16)
_COUNT = Integer()
_SMALL = Integer(16)
_MICROBATCH = Integer(20)
_CONFIG = Binary(32 * 1024)
_METRICS = ListOf(Number(), 64)
_NAMES = ListOf(Text(64), 16)
_COPIED = ListOf(Text(64), 24)
_CODE = Text(32)


@record
class Hello:
    """Worker or evaluator -> coordinator: let me in. Sent again until it is answered."""

    KIND: ClassVar[str] = "hello"
    protocol: int = header_field("p", _SMALL)
    session: bytes = header_field("s", _ID)
    role: str = header_field("r", Text(16))
    name: str = header_field("n", Text(256))
    fingerprint: str = header_field("f", Text(256))


@record
class Welcome:
    """Coordinator -> worker or evaluator: you are in, and this is the run.

    config    JSON text that the programs understand and the protocol does not
    shards    (address, first element, end) of each shard, in order; `tcp://*:PORT` is on the coordinator's host
    """

    KIND: ClassVar[str] = "welcome"
    session: bytes = header_field("s", _ID)
    run: bytes = header_field("run", _ID)
    config: bytes = header_field("c", _CONFIG)
    shards: tuple[tuple[str, int, int], ...] = header_field("h", ListOf(Each((Text(256), _COUNT, _COUNT))))
    microbatches: int = header_field("m", _MICROBATCH)
    steps: int = header_field("n", _COUNT)
    bound: int | None = header_field("b", Nullable(_COUNT))
    delay: int = header_field("d", _SMALL)
    first: int = header_field("f", _COUNT)
    version: int = header_field("v", _COUNT)
    moves: int = header_field("mv", _COUNT)


@record
class Moved:
    """Coordinator -> worker or evaluator: shards are at other addresses now; ask them again what they did not answer.

    moves      how many times shards have moved
    addresses  of all shards, in order
    """

    KIND: ClassVar[str] = "moved"
    moves: int = header_field("mv", _COUNT)
    addresses: tuple[str, ...] = header_field("h", ListOf(Text(256)))


@record
class Ready:
    """Worker -> coordinator: I am there, and this is what I finished last.

    Sent when a piece of work is done, and again every second until the next one is computed.

    ticket       the last piece of work that was finished and pushed; 0 for none
    nanoseconds  that its computation took; 0 where it was dropped, its weights being gone
    encoding     nanoseconds of these that its pushes were encoded for
    waiting      nanoseconds between the end of the work before and its beginning
    moves        how many times shards have moved, as far as it knows
    """

    KIND: ClassVar[str] = "ready"
    session: bytes = header_field("s", _ID)
    ticket: int = header_field("k", _COUNT)
    nanoseconds: int = header_field("ns", _COUNT)
    encoding: int = header_field("en", _COUNT)
    waiting: int = header_field("wt", _COUNT)
    moves: int = header_field("mv", _COUNT)


@record
class Work:
    """Coordinator -> worker: compute these blocks of this step.

    Tickets grow; one that is not newer is a repetition.
    """

    KIND: ClassVar[str] = "work"
    ticket: int = header_field("k", _COUNT)
    step: int = header_field("n", _COUNT)
    blocks: tuple[tuple[int, int], ...] = header_field("b", ListOf(Each((_MICROBATCH, _MICROBATCH))))


@record
class Push:
    """Worker -> shard: the summed gradient of a block of one step, this shard's slice of it.

    ticket   of the piece of work that it belongs to
    version  the version of the weights it was computed on
    then     [low, high] of the versions to answer with (high nil: any newer), or nil for no answer
    """

    KIND: ClassVar[str] = "push"
    run: bytes = header_field("run", _ID)
    session: bytes = header_field("s", _ID)
    ticket: int = header_field("k", _COUNT)
    step: int = header_field("n", _COUNT)
    start: int = header_field("a", _MICROBATCH)
    stop: int = header_field("z", _MICROBATCH)
    version: int = header_field("v", _COUNT)
    metrics: tuple[float, ...] = header_field("m", _METRICS)
    then: Range | None = header_field("w", Nullable(Span()))
    payload: Tensors = tensors(1)


@record
class Pull:
    """Client -> shard: your slice at the newest version in [low, high], as soon as there is one.

    exact  the weights themselves, not what workers compute on where weights are sent encoded
    """

    KIND: ClassVar[str] = "pull"
    run: bytes = header_field("run", _ID)
    want: Range = header_field("w", Span())
    exact: bool = header_field("x", Boolean())


@record
class Weights:
    """Shard -> client: the slice at one published version.

    encoded  whether the payload is words of the run's codec for pulls
    base     of words that are a change, the version that they are added to; else nil
    """

    KIND: ClassVar[str] = "weights"
    version: int = header_field("v", _COUNT)
    encoded: bool = header_field("e", Boolean())
    base: int | None = header_field("b", Nullable(_COUNT))
    payload: Tensors = tensors(1)


@record
class Trouble:
    """Worker -> coordinator: this work cannot be done (a gradient that is not finite, data that cannot be read)."""

    KIND: ClassVar[str] = "trouble"
    session: bytes = header_field("s", _ID)
    ticket: int = header_field("k", _COUNT)
    text: str = header_field("e", Text(2048))


@record
class Milestone:
    """Coordinator -> evaluator: every shard keeps `version` until the next milestone."""

    KIND: ClassVar[str] = "milestone"
    version: int = header_field("v", _COUNT)
    is_last: bool = header_field("l", Boolean())


@record
class Report:
    """Evaluator -> coordinator: figures about the version that was measured last, nil before the first.

    Sent again every second; it also says that the evaluator is there.
    """

    KIND: ClassVar[str] = "report"
    session: bytes = header_field("s", _ID)
    version: int | None = header_field("v", Nullable(_COUNT))
    values: tuple[tuple[str, float], ...] = header_field("m", ListOf(Each((Text(64), Number())), 64))
    moves: int = header_field("mv", _COUNT)


@record
class Bye:
    """Client -> coordinator: I am leaving; give my work to somebody else."""

    KIND: ClassVar[str] = "bye"
    session: bytes = header_field("s", _ID)


@record
class Status:
    """Anybody -> coordinator: how is it going?"""

    KIND: ClassVar[str] = "status"


@record
class State:
    """Coordinator -> asker: how it is going, as JSON text."""

    KIND: ClassVar[str] = "state"
    json: bytes = header_field("j", Binary(60 * 1024))


@record
class Stop:
    """Coordinator -> everybody: the run is over (or failed, and why)."""

    KIND: ClassVar[str] = "stop"
    failed: bool = header_field("f", Boolean())
    reason: str = header_field("e", Text(2048))


@record
class Error:
    """Anybody: your message was refused, and nothing changed."""

    KIND: ClassVar[str] = "error"
    code: str = header_field("c", _CODE)
    text: str = header_field("e", Text(2048))


@record
class Share:
    """Client -> server: if we are on one host, let us read each other's tensors where they lie."""

    KIND: ClassVar[str] = "share"


@record
class Meet:
    """Server -> client: come to this local socket with this word; the name is empty where nothing is shared."""

    KIND: ClassVar[str] = "meet"
    name: bytes = header_field("n", Binary(107))
    word: bytes = header_field("w", Binary(16))


@record
class Join:
    """Server -> coordinator: I can be a shard, reached at `address`. Sent again until it is answered.

    follows  it wants to follow a leader; else it wants a shard that nobody has
    """

    KIND: ClassVar[str] = "join"
    protocol: int = header_field("p", _SMALL)
    session: bytes = header_field("s", _ID)
    address: str = header_field("a", Text(256))
    follows: bool = header_field("f", Boolean())


@record
class Admit:
    """Coordinator -> server: you are this shard; here are your weights and your optimizer's state.

    first    the version that the servers began at
    leader   where the leader is that it is to follow; empty for one that leads
    tensors  of one that leads: the slice at `version`, then each array of `names`, the optimizer's state
    """

    KIND: ClassVar[str] = "admit"
    run: bytes = header_field("run", _ID)
    config: bytes = header_field("c", _CONFIG)
    shard: int = header_field("i", _SMALL)
    start: int = header_field("a", _COUNT)
    stop: int = header_field("z", _COUNT)
    microbatches: int = header_field("m", _MICROBATCH)
    steps: int = header_field("n", _COUNT)
    bound: int | None = header_field("b", Nullable(_COUNT))
    delay: int = header_field("d", _SMALL)
    milestone: int = header_field("ms", _COUNT)
    first: int = header_field("f", _COUNT)
    leader: str = header_field("l", Text(256))
    version: int = header_field("v", _COUNT)
    names: tuple[str, ...] = header_field("o", _NAMES)
    payload: Tensors = tensors(17)


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

    Sent after every step and once a second; the latest says all.
    """

    KIND: ClassVar[str] = "applied"
    run: bytes = header_field("run", _ID)
    shard: int = header_field("i", _SMALL)
    before: int = header_field("v", _COUNT)
    beyond: tuple[int, ...] = header_field("y", ListOf(_COUNT))
    pushed: int = header_field("in", _COUNT)
    pulled: int = header_field("out", _COUNT)
    shared: int = header_field("sh", _COUNT)
    dense: int = header_field("de", _COUNT)
    incarnation: int = header_field("ic", _COUNT)
    follower: bytes | None = header_field("f", Nullable(_ID))
    leaving: bytes | None = header_field("l", Nullable(_ID))
    refused: tuple[tuple[str, int], ...] = header_field("re", ListOf(Each((_CODE, _COUNT)), 64), ())
    blamed: tuple[tuple[bytes, int, str], ...] = header_field("bl", ListOf(Each((_ID, _COUNT, _CODE)), 64), ())


@record
class TakeSnapshot:
    """Coordinator -> shard: send a snapshot of `version`, now or as soon as you are there."""

    KIND: ClassVar[str] = "take-snapshot"
    version: int = header_field("v", _COUNT)


@record
class Snapshot:
    """Shard -> coordinator: its whole state at `version`: the weights, then each array of `names`."""

    KIND: ClassVar[str] = "snapshot"
    run: bytes = header_field("run", _ID)
    shard: int = header_field("i", _SMALL)
    version: int = header_field("v", _COUNT)
    metrics: tuple[float, ...] = header_field("m", _METRICS)
    names: tuple[str, ...] = header_field("o", _NAMES)
    payload: Tensors = tensors(17)


@record
class Lead:
    """Coordinator -> server: you lead this shard, as this incarnation of it.

    gone  the following that is known to be over; else nil
    """

    KIND: ClassVar[str] = "lead"
    run: bytes = header_field("run", _ID)
    shard: int = header_field("i", _SMALL)
    incarnation: int = header_field("ic", _COUNT)
    gone: bytes | None = header_field("g", Nullable(_ID))


@record
class Follow:
    """Follower -> leader: send me your state, and from then on what you apply. Sent again until it is answered.

    following  16 bytes drawn for this time
    """

    KIND: ClassVar[str] = "follow"
    run: bytes = header_field("run", _ID)
    shard: int = header_field("i", _SMALL)
    following: bytes = header_field("f", _ID)


@record
class Copy:
    """Leader -> follower: its whole state at a version.

    updates  how many updates made it
    tensors  the slice, each array of the optimizer's state, and what is published besides, in the order of `names`
    """

    KIND: ClassVar[str] = "copy"
    following: bytes = header_field("f", _ID)
    version: int = header_field("v", _COUNT)
    updates: int = header_field("u", _COUNT)
    metrics: tuple[float, ...] = header_field("m", _METRICS)
    names: tuple[str, ...] = header_field("o", _COPIED)
    payload: Tensors = tensors(24)


@record
class Replicate:
    """Leader -> follower: the summed gradient of the step after `version`, which is published once you have it."""

    KIND: ClassVar[str] = "replicate"
    following: bytes = header_field("f", _ID)
    version: int = header_field("v", _COUNT)
    metrics: tuple[float, ...] = header_field("m", _METRICS)
    payload: Tensors = tensors(1)


@record
class Replicated:
    """Follower -> leader: I have all that makes this version. Sent again every second."""

    KIND: ClassVar[str] = "replicated"
    following: bytes = header_field("f", _ID)
    version: int = header_field("v", _COUNT)


@record
class Standby:
    """Follower -> coordinator: I am there. Sent again every second.

    following  what it is following, since the version `since` of the copy that it got; nil before it has one
    """

    KIND: ClassVar[str] = "standby"
    run: bytes = header_field("run", _ID)
    shard: int = header_field("i", _SMALL)
    session: bytes = header_field("s", _ID)
    following: bytes | None = header_field("f", Nullable(_ID))
    since: int = header_field("b", _COUNT)
    version: int = header_field("v", _COUNT)


Message = Any

TO_SERVER: dict[str, type] = {
    cls.KIND: cls
    for cls in (
        Hello,
        Ready,
        Trouble,
        Report,
        Bye,
        Status,
        Share,
        Join,
        Applied,
        Snapshot,
        Standby,
        Push,
        Pull,
        Follow,
        Replicated,
        TakeSnapshot,
        Stop,
        Error,
    )
}
TO_CLIENT: dict[str, type] = {
    cls.KIND: cls
    for cls in (
        Welcome,
        Moved,
        Work,
        Weights,
        Milestone,
        State,
        Meet,
        Stop,
        Error,
        Admit,
        TakeSnapshot,
        Lead,
        Copy,
        Replicate,
    )
}
