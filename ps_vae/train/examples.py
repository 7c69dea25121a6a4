"""Examples as the model sees them: rows in the run's order, scaled, binarised.

What a row becomes follows from its name alone: the run's seed, the step, its place in the batch.
"""

import numpy as np
import numpy.typing as npt

from ps_vae.data import Dataset, Split, gather, rows_of
from ps_vae.nn.noise import Stream, bernoulli, standard_normal
from ps_vae.train.config import RunConfig

__all__ = ["Batches", "fixed_rows"]

Floats = npt.NDArray[np.float32]

# The step under which an example that is binarised once has its noise, by split; training steps stay below.
_FIXED_STEPS = {"train": (1 << 32) - 1, "validation": (1 << 32) - 2, "test": (1 << 32) - 3}


class Batches:
    """Fills in microbatches of a run; holds nothing but scratch memory."""

    def __init__(self, config: RunConfig, split: Split) -> None:
        self._config = config
        self._split = split
        self._rows = np.empty(config.microbatch, np.int64)
        self._positions = np.arange(config.microbatch, dtype=np.int64)

    def fill(self, step: int, index: int, batch: Floats, noise: Floats) -> None:
        """Microbatch `index` of `step`.

        batch  (microbatch, width), written: the examples
        noise  (microbatch, samples * latent), written: standard normals for the reparameterisation
        """
        config = self._config
        first = index * config.microbatch
        rows_of(config.seed, step * config.batch_size + first, len(self._split), self._rows)
        gather(self._split, self._rows, batch)
        positions = self._positions + first
        if config.binarize == "dynamic":
            bernoulli(batch, batch, seed=config.seed, stream=Stream.BINARIZE, step=step, rows=positions)
        elif config.binarize == "static":
            step_of_split = _FIXED_STEPS["train"]
            bernoulli(batch, batch, seed=config.seed, stream=Stream.BINARIZE, step=step_of_split, rows=self._rows)
        standard_normal(noise, seed=config.seed, stream=Stream.POSTERIOR, step=step, rows=positions)


def fixed_rows(config: RunConfig, data: Dataset, split: str, start: int, stop: int) -> Floats:
    """Rows start, …, stop-1 of a split for evaluation, (stop - start, width): binarised once where the run binarises.

    The bits of a pixel follow from the run's seed, the split and the row, so every evaluation sees the same images.
    """
    rows = np.arange(start, stop, dtype=np.int64)
    part = data.split(split)
    examples = gather(part, rows, np.empty((stop - start, part.width), np.float32))
    if config.binarize != "none":
        step = _FIXED_STEPS[split]
        bernoulli(examples, examples, seed=config.seed, stream=Stream.BINARIZE, step=step, rows=rows)
    return examples
