"""Early stopping: which version's held-out rows are likeliest, and when none has been better for long enough."""

import numpy as np
import numpy.typing as npt

from ps_vae.data import Dataset
from ps_vae.errors import UsageError
from ps_vae.train.best import Best
from ps_vae.train.config import RunConfig
from ps_vae.train.elbo import mean_elbo
from ps_vae.train.examples import fixed_rows
from ps_vae.vae.layout import ParameterLayout

__all__ = ["Judge"]

# As many as a run's evaluator looks at.
_ROWS = 2_000

Floats = npt.NDArray[np.float32]


class Judge:
    """Sees the milestones of a run in their order, so that its verdict follows from the run's bits alone.

    best     which version, and its ELBO
    weights  of that version; None while there is none
    """

    def __init__(self, config: RunConfig, data: Dataset, patience: int) -> None:
        count = min(_ROWS, len(data.validation))
        if not count:
            raise UsageError(
                f"patience={patience} needs rows to judge by, and validation_fraction leaves none of "
                f"{len(data.train)}; give a larger one, or patience=0"
            )
        self.best = Best()
        self.weights: Floats | None = None
        self._config, self._patience = config, patience
        self._layout = ParameterLayout(config.model)
        self._names = np.arange(count, dtype=np.int64)
        self._examples = fixed_rows(config, data, "validation", 0, count)

    @property
    def is_over(self) -> bool:
        return self.best.is_over(self._patience)

    def see(self, version: int, weights: Floats) -> None:
        """The next milestone's weights (size,); none counts after the verdict, or before one that was seen."""
        if self.is_over or version <= self.best.newest:
            return
        elbo = mean_elbo(self._layout.bind(weights), self._examples, self._config.seed, self._names)["elbo"]
        self.best.told(version, elbo)
        if self.best.version == version:
            self.weights = weights.copy()
