"""What all members of a run have to agree on."""

import dataclasses

from ps_vae.ps.aggregation.table import Aggregation
from ps_vae.ps.consistency import Consistency
from ps_vae.ps.record import record

__all__ = ["ASYNCHRONOUS_WINDOW", "RunRules"]

# Steps that asynchronous work may be ahead of the first that is not applied. It bounds what a shard has to remember,
# and an `applied` message, which lists the steps that are applied beyond the first gap.
ASYNCHRONOUS_WINDOW = 1024

_SECRET_BYTES = 16


@record
class RunRules:
    """The rules of a run.

    run           16 random bytes that name the run, drawn anew at each start: members of an earlier start are refused
    microbatches  leaves of a step's tree
    steps         how many there are
    milestone     a snapshot is taken each time that so many steps are in the weights
    metrics       numbers that come with each push and are summed beside the gradient
    batches       that a microbatch of a step is worked through one after the other: more than one with local steps
    aggregation   what a step makes of its microbatches, which are pushed one by one then; None: their sum
    secret        what permits are made with, where there is an aggregation: 16 random bytes of the servers; else empty
    """

    run: bytes
    microbatches: int
    steps: int
    consistency: Consistency
    milestone: int
    metrics: int
    batches: int = 1
    aggregation: Aggregation | None = None
    secret: bytes = dataclasses.field(default=b"", repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError where permits could not be made, or are of no use."""
        if len(self.secret) != (0 if self.aggregation is None else _SECRET_BYTES):
            text = f"a secret of {len(self.secret)} bytes, with aggregation {self.aggregation}"
            raise ValueError(f"{text}; there are {_SECRET_BYTES} with one, else none")

    def is_milestone(self, version: int) -> bool:
        """Whether a snapshot of `version` is taken."""
        return version % self.milestone == 0 or version == self.steps

    def newest_milestone(self, version: int) -> int:
        """The newest milestone that is not above `version`."""
        return version if version == self.steps else version - version % self.milestone
