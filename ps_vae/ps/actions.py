"""What a client's state machine asks its program to do, besides sending messages; and what the program answers."""

import numpy as np
import numpy.typing as npt

from ps_vae.ps.blocks import Block
from ps_vae.ps.messages import Welcome
from ps_vae.ps.outbox import Send
from ps_vae.ps.record import record

__all__ = [
    "RETRY_SECONDS",
    "Action",
    "Compute",
    "Joined",
    "Measure",
    "Result",
    "ShardsMoved",
    "Spent",
    "Stopped",
    "Store",
    "StoreWords",
]

# A client repeats what was not answered this often, and says that it is there.
RETRY_SECONDS = 1.0


@record
class Joined:
    """The run is known: connect to its shards, prepare model and data, then call `prepared`."""

    welcome: Welcome


@record
class ShardsMoved:
    """The shards are at these addresses from now on; what follows goes there."""

    addresses: tuple[str, ...]


@record
class Store:
    """Copy these weights into the vector, from element `start` on."""

    start: int
    weights: npt.NDArray[np.float32]


@record
class StoreWords:
    """Decode these words of a shard into its slice of the vector, or add what they say to it."""

    shard: int
    words: npt.NDArray[np.float32]
    is_change: bool


@record
class Compute:
    """All weights are there: compute the blocks of the step, then call `computed` (or `failed`)."""

    step: int
    blocks: tuple[Block, ...]


@record
class Stopped:
    """The run is over."""

    failed: bool
    reason: str


@record
class Measure:
    """All weights of `version` are there: measure, then call `measured`."""

    version: int


Action = Send | Joined | ShardsMoved | Store | StoreWords | Compute | Measure | Stopped


@record
class Spent:
    """Nanoseconds of a piece of work.

    computing  until it was ready to be sent; 0 where it was dropped
    encoding   of these, for its pushes
    waiting    from the end of the work before to its beginning
    """

    computing: int = 0
    encoding: int = 0
    waiting: int = 0


@record
class Result:
    """A block's summed gradient (the whole vector) and summed metrics."""

    block: Block
    gradient: npt.NDArray[np.float32]
    metrics: tuple[float, ...]
