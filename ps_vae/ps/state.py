"""What a shard starts from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ShardState"]


@dataclass(slots=True)
class ShardState:
    """All that a restart needs: weights and optimizer state at a version."""

    version: int
    weights: npt.NDArray[np.float32]
    optimizer: dict[str, npt.NDArray[np.float32]]
