"""What a shard starts from."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["ShardState"]


@dataclass(slots=True)
class ShardState:
    """All that a restart needs: weights and optimizer state at a version; and what a leader's follower has besides.

    updates    how many updates made it; None: one a step
    metrics    of the newest step
    published  what is published besides the weights, by name: of `Publication.besides`
    """

    version: int
    weights: npt.NDArray[np.float32]
    optimizer: dict[str, npt.NDArray[np.float32]]
    updates: int | None = None
    metrics: tuple[float, ...] = ()
    published: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
