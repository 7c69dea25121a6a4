"""The messages of the protocol, one dataclass each; `PROTOCOL.md` shows the same tables.

A run is named by 16 random bytes and a session by 16 bytes that its client chose. Steps, versions and microbatches are 0-based.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ps_vae.ps.frames import binary, boolean, header_field, integer, list_of, number, optional, tensors, text

__all__ = [
    "PROTOCOL",
    "TO_CLIENT",
    "TO_SERVER",
    "Admit",
    "Applied",
    "Bye",
    "Error",
    "Hello",
    "Join",
    "Message",
    "Milestone",
    "Pull",
    "Push",
    "Ready",
    "Report",
    "Snapshot",
    "State",
    "Status",
    "Stop",
    "TakeSnapshot",
    "Trouble",
    "Weights",
    "Welcome",
    "Work",
]

PROTOCOL = 1

Tensors = tuple[npt.NDArray[np.float32], ...]
Range = tuple[int, int | None]

_ID = binary(16, 16)
_COUNT = integer()
_RANGE = list_of([_COUNT, optional(_COUNT)])
_METRICS = list_of(number, 64)


@dataclass(frozen=True, slots=True)
class Hello:
    """Worker or evaluator -> coordinator: let me in. Sent again until it is answered."""

    KIND: ClassVar[str] = "hello"
    protocol: int = header_field("p", integer(16))
    session: bytes = header_field("s", _ID)
    role: str = header_field("r", text(16))
    name: str = header_field("n", text(256))
    fingerprint: str = header_field("f", text(256))


@dataclass(frozen=True, slots=True)
class Welcome:
    """Coordinator -> worker or evaluator: you are in, and this is the run.

    config    JSON text that the programs understand and the protocol does not
    shards    (address, first element, end) of each shard, in order; an address `tcp://*:PORT` is on the coordinator's host
    """

    KIND: ClassVar[str] = "welcome"
    session: bytes = header_field("s", _ID)
    run: bytes = header_field("run", _ID)
    config: bytes = header_field("c", binary(32 * 1024))
    shards: tuple[tuple[str, int, int], ...] = header_field("h", list_of(list_of([text(256), _COUNT, _COUNT])))
    microbatches: int = header_field("m", integer(20))
    steps: int = header_field("n", _COUNT)
    bound: int | None = header_field("b", optional(_COUNT))
    version: int = header_field("v", _COUNT)


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker -> coordinator: I am idle. Sent again until there is work.

    ticket       the last piece of work that was finished and pushed; 0 for none
    nanoseconds  that its computation took; 0 where it was dropped, its weights being gone
    """

    KIND: ClassVar[str] = "ready"
    session: bytes = header_field("s", _ID)
    ticket: int = header_field("k", _COUNT)
    nanoseconds: int = header_field("ns", _COUNT)


@dataclass(frozen=True, slots=True)
class Work:
    """Coordinator -> worker: compute these blocks of this step. Tickets grow; one that is not newer is a repetition."""

    KIND: ClassVar[str] = "work"
    ticket: int = header_field("k", _COUNT)
    step: int = header_field("n", _COUNT)
    blocks: tuple[tuple[int, int], ...] = header_field("b", list_of(list_of([integer(20), integer(20)])))


@dataclass(frozen=True, slots=True)
class Push:
    """Worker -> shard: the summed gradient of a block of one step, this shard's slice of it.

    version  the version of the weights it was computed on
    then     [low, high] of the versions to answer with (high nil: any newer), or nil for no answer
    """

    KIND: ClassVar[str] = "push"
    run: bytes = header_field("run", _ID)
    step: int = header_field("n", _COUNT)
    start: int = header_field("a", integer(20))
    stop: int = header_field("z", integer(20))
    version: int = header_field("v", _COUNT)
    metrics: tuple[float, ...] = header_field("m", _METRICS)
    then: Range | None = header_field("w", optional(_RANGE))
    payload: Tensors = tensors(1)


@dataclass(frozen=True, slots=True)
class Pull:
    """Client -> shard: your slice at the newest version in [low, high], as soon as there is one."""

    KIND: ClassVar[str] = "pull"
    run: bytes = header_field("run", _ID)
    want: Range = header_field("w", _RANGE)


@dataclass(frozen=True, slots=True)
class Weights:
    """Shard -> client: the slice at one published version."""

    KIND: ClassVar[str] = "weights"
    version: int = header_field("v", _COUNT)
    payload: Tensors = tensors(1)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Worker -> coordinator: this piece of work cannot be done (a gradient that is not finite, data that cannot be read)."""

    KIND: ClassVar[str] = "trouble"
    session: bytes = header_field("s", _ID)
    ticket: int = header_field("k", _COUNT)
    text: str = header_field("e", text(2048))


@dataclass(frozen=True, slots=True)
class Milestone:
    """Coordinator -> evaluator: every shard keeps `version` until the next milestone."""

    KIND: ClassVar[str] = "milestone"
    version: int = header_field("v", _COUNT)
    is_last: bool = header_field("l", boolean)


@dataclass(frozen=True, slots=True)
class Report:
    """Evaluator -> coordinator: figures about a version."""

    KIND: ClassVar[str] = "report"
    session: bytes = header_field("s", _ID)
    version: int = header_field("v", _COUNT)
    values: tuple[tuple[str, float], ...] = header_field("m", list_of(list_of([text(64), number]), 64))


@dataclass(frozen=True, slots=True)
class Bye:
    """Client -> coordinator: I am leaving; give my work to somebody else."""

    KIND: ClassVar[str] = "bye"
    session: bytes = header_field("s", _ID)


@dataclass(frozen=True, slots=True)
class Status:
    """Anybody -> coordinator: how is it going?"""

    KIND: ClassVar[str] = "status"


@dataclass(frozen=True, slots=True)
class State:
    """Coordinator -> asker: how it is going, as JSON text."""

    KIND: ClassVar[str] = "state"
    json: bytes = header_field("j", binary(60 * 1024))


@dataclass(frozen=True, slots=True)
class Stop:
    """Coordinator -> everybody: the run is over (or failed, and why)."""

    KIND: ClassVar[str] = "stop"
    failed: bool = header_field("f", boolean)
    reason: str = header_field("e", text(2048))


@dataclass(frozen=True, slots=True)
class Error:
    """Anybody: your message was refused, and nothing changed."""

    KIND: ClassVar[str] = "error"
    code: str = header_field("c", text(32))
    text: str = header_field("e", text(2048))


@dataclass(frozen=True, slots=True)
class Join:
    """Server -> coordinator: I can be a shard, reached at `address`. Sent again until it is answered."""

    KIND: ClassVar[str] = "join"
    protocol: int = header_field("p", integer(16))
    session: bytes = header_field("s", _ID)
    address: str = header_field("a", text(256))


@dataclass(frozen=True, slots=True)
class Admit:
    """Coordinator -> server: you are this shard; here are your weights and your optimizer's state.

    tensors  the slice at `version`, then each array of the optimizer's state, in the order of `names`
    """

    KIND: ClassVar[str] = "admit"
    run: bytes = header_field("run", _ID)
    config: bytes = header_field("c", binary(32 * 1024))
    shard: int = header_field("i", integer(16))
    start: int = header_field("a", _COUNT)
    stop: int = header_field("z", _COUNT)
    microbatches: int = header_field("m", integer(20))
    steps: int = header_field("n", _COUNT)
    bound: int | None = header_field("b", optional(_COUNT))
    milestone: int = header_field("ms", _COUNT)
    version: int = header_field("v", _COUNT)
    names: tuple[str, ...] = header_field("o", list_of(text(64), 16))
    payload: Tensors = tensors(17)


@dataclass(frozen=True, slots=True)
class Applied:
    """Shard -> coordinator: which steps are in the weights: all below `before`, and those `beyond` it.

    pushed, pulled  bytes so far, to and from the shard

    Sent after every step and once a second; the latest says all.
    """

    KIND: ClassVar[str] = "applied"
    shard: int = header_field("i", integer(16))
    before: int = header_field("v", _COUNT)
    beyond: tuple[int, ...] = header_field("y", list_of(_COUNT))
    pushed: int = header_field("in", _COUNT)
    pulled: int = header_field("out", _COUNT)


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Coordinator -> shard: send a snapshot of `version`, now or as soon as you are there."""

    KIND: ClassVar[str] = "take-snapshot"
    version: int = header_field("v", _COUNT)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Shard -> coordinator: its whole state at `version`: the weights, then each array of `names`."""

    KIND: ClassVar[str] = "snapshot"
    shard: int = header_field("i", integer(16))
    version: int = header_field("v", _COUNT)
    metrics: tuple[float, ...] = header_field("m", _METRICS)
    names: tuple[str, ...] = header_field("o", list_of(text(64), 16))
    payload: Tensors = tensors(17)


Message = Any

TO_SERVER: dict[str, type] = {
    cls.KIND: cls
    for cls in (Hello, Ready, Trouble, Report, Bye, Status, Join, Applied, Snapshot, Push, Pull, TakeSnapshot, Stop, Error)
}
TO_CLIENT: dict[str, type] = {cls.KIND: cls for cls in (Welcome, Work, Weights, Milestone, State, Stop, Error, Admit, TakeSnapshot)}
