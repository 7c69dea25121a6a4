"""What workers and evaluators say to servers while a run goes on, and what these say to them."""

from typing import ClassVar

from ps_vae.ps.fields import Boolean, Each, ListOf, Nullable, Number, Span, Text
from ps_vae.ps.frames import extra_field, header_field, tensors
from ps_vae.ps.messages.values import CONFIG, COUNT, ID, METRICS, MICROBATCH, PERMIT, SMALL, Range, Tensors
from ps_vae.ps.record import record

__all__ = [
    "Bye",
    "Hello",
    "Milestone",
    "Moved",
    "Pull",
    "Push",
    "Ready",
    "Report",
    "Trouble",
    "Weights",
    "Welcome",
    "Work",
]


@record
class Hello:
    """Worker or evaluator -> coordinator: let me in. Sent again until it is answered."""

    KIND: ClassVar[str] = "hello"
    protocol: int = header_field("p", SMALL)
    session: bytes = header_field("s", ID)
    role: str = header_field("r", Text(16))
    name: str = header_field("n", Text(256))
    fingerprint: str = header_field("f", Text(256))


@record
class Welcome:
    """Coordinator -> worker or evaluator: you are in, and this is the run.

    config    JSON text that the programs understand and the protocol does not
    shards    (address, first element, end) of each shard, in order; `tcp://*:PORT` is on the coordinator's host, and an
              empty address is the coordinator's server itself
    """

    KIND: ClassVar[str] = "welcome"
    session: bytes = header_field("s", ID)
    run: bytes = header_field("run", ID)
    config: bytes = header_field("c", CONFIG)
    shards: tuple[tuple[str, int, int], ...] = header_field("h", ListOf(Each((Text(256), COUNT, COUNT))))
    microbatches: int = header_field("m", MICROBATCH)
    steps: int = header_field("n", COUNT)
    bound: int | None = header_field("b", Nullable(COUNT))
    delay: int = header_field("d", SMALL)
    first: int = header_field("f", COUNT)
    version: int = header_field("v", COUNT)
    moves: int = header_field("mv", COUNT)


@record
class Moved:
    """Coordinator -> worker or evaluator: shards are at other addresses now; ask them again what they did not answer.

    moves      how many times shards have moved
    addresses  of all shards, in order, as in `welcome`
    """

    KIND: ClassVar[str] = "moved"
    moves: int = header_field("mv", COUNT)
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
    session: bytes = header_field("s", ID)
    ticket: int = header_field("k", COUNT)
    nanoseconds: int = header_field("ns", COUNT)
    encoding: int = header_field("en", COUNT)
    waiting: int = header_field("wt", COUNT)
    moves: int = header_field("mv", COUNT)


@record
class Work:
    """Coordinator -> worker: compute these blocks of this step.

    Tickets grow; one that is not newer is a repetition.

    permits  of each block, in order, where the run has them
    """

    KIND: ClassVar[str] = "work"
    ticket: int = header_field("k", COUNT)
    step: int = header_field("n", COUNT)
    blocks: tuple[tuple[int, int], ...] = header_field("b", ListOf(Each((MICROBATCH, MICROBATCH))))
    permits: tuple[bytes, ...] = extra_field("pm", ListOf(PERMIT), ())


@record
class Push:
    """Worker -> shard: the summed gradient of a block of one step, this shard's slice of it.

    ticket   of the piece of work that it belongs to
    version  the version of the weights it was computed on
    then     [low, high] of the versions to answer with (high nil: any newer), or nil for no answer
    permit   of the block, from the `work`, where the run has permits; else None
    """

    KIND: ClassVar[str] = "push"
    run: bytes = header_field("run", ID)
    shard: int = header_field("i", SMALL)
    session: bytes = header_field("s", ID)
    ticket: int = header_field("k", COUNT)
    step: int = header_field("n", COUNT)
    start: int = header_field("a", MICROBATCH)
    stop: int = header_field("z", MICROBATCH)
    version: int = header_field("v", COUNT)
    metrics: tuple[float, ...] = header_field("m", METRICS)
    then: Range | None = header_field("w", Nullable(Span()))
    payload: Tensors = tensors(1)
    permit: bytes | None = extra_field("pm", PERMIT, None)


@record
class Pull:
    """Client -> shard: your slice at the newest version in [low, high], as soon as there is one.

    exact  the weights themselves, not what workers compute on where weights are sent encoded
    """

    KIND: ClassVar[str] = "pull"
    run: bytes = header_field("run", ID)
    shard: int = header_field("i", SMALL)
    want: Range = header_field("w", Span())
    exact: bool = header_field("x", Boolean())


@record
class Weights:
    """Shard -> client: the slice at one published version.

    encoded  whether the payload is words of the run's codec for pulls
    base     of words that are a change, the version that they are added to; else nil
    """

    KIND: ClassVar[str] = "weights"
    version: int = header_field("v", COUNT)
    encoded: bool = header_field("e", Boolean())
    base: int | None = header_field("b", Nullable(COUNT))
    payload: Tensors = tensors(1)


@record
class Trouble:
    """Worker -> coordinator: this work cannot be done (a gradient that is not finite, data that cannot be read)."""

    KIND: ClassVar[str] = "trouble"
    session: bytes = header_field("s", ID)
    ticket: int = header_field("k", COUNT)
    text: str = header_field("e", Text(2048))


@record
class Milestone:
    """Coordinator -> evaluator: every shard keeps `version` until the next milestone."""

    KIND: ClassVar[str] = "milestone"
    version: int = header_field("v", COUNT)
    is_last: bool = header_field("l", Boolean())


@record
class Report:
    """Evaluator -> coordinator: figures about the version that was measured last, nil before the first.

    Sent again every second; it also says that the evaluator is there.
    """

    KIND: ClassVar[str] = "report"
    session: bytes = header_field("s", ID)
    version: int | None = header_field("v", Nullable(COUNT))
    values: tuple[tuple[str, float], ...] = header_field("m", ListOf(Each((Text(64), Number())), 64))
    moves: int = header_field("mv", COUNT)


@record
class Bye:
    """Client -> coordinator: I am leaving; give my work to somebody else."""

    KIND: ClassVar[str] = "bye"
    session: bytes = header_field("s", ID)
