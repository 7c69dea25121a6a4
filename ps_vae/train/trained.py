"""A trained model, opened from its run's folder."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ps_vae.data import SPLITS, Dataset, gather
from ps_vae.errors import CheckpointError, DataError, UsageError
from ps_vae.jit import announce_compilation
from ps_vae.nn.noise import Stream, standard_normal
from ps_vae.train import checkpoint
from ps_vae.train.best import Best
from ps_vae.train.config import RunConfig
from ps_vae.train.data import data_of
from ps_vae.train.examples import fixed_rows
from ps_vae.train.run_folder import RunFolder
from ps_vae.vae.inference import decode, draw, encode, latent_of, reconstruct, sample_prior
from ps_vae.vae.layout import ParameterLayout, Parameters
from ps_vae.vae.rows import joined, x_of

__all__ = ["Floats", "TrainedModel"]

_CHUNK = 1024
_SHOWN = 40
# From which the prior's first and last percent are taken.
_PRIOR_SAMPLES = 5000

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainedModel:
    """A run's newest weights (or those of one version), and its data when they are asked for."""

    run_dir: Path
    config: RunConfig
    version: int
    parameters: Parameters

    @staticmethod
    def open(run_dir: Path, *, version: int | str | None = None, say: Callable[[str], None]) -> "TrainedModel":
        """Of a version, a number or "best" (the highest validation ELBO); None: the newest.

        Raises UsageError where there is no run or no such version, CheckpointError where it has no whole checkpoint.
        """
        announce_compilation(say)
        folder = RunFolder(run_dir)
        if isinstance(version, str):
            version = _number(version, folder)
        config = folder.config()
        layout = ParameterLayout(config.model)
        if version is not None:
            path = folder.checkpoints / f"step-{version:08d}.safetensors"
            if not path.exists():
                have = ", ".join(path.name for path in checkpoint.list_checkpoints(folder.checkpoints)) or "none"
                raise UsageError(f"{run_dir} has no checkpoint of version {version}; it has {have}")
            found: checkpoint.Checkpoint | None = checkpoint.read(path, layout)
        else:
            damaged: list[checkpoint.Damaged] = []
            found = checkpoint.newest(folder.checkpoints, layout, damaged)
            for file in damaged:
                say(file.line)
        if found is None:
            raise CheckpointError(
                f"{run_dir} has no checkpoint that can be read; train it first, or give --steps fewer"
            )
        return TrainedModel(run_dir, config, found.version, layout.bind(found.state.weights))

    @cached_property
    def data(self) -> Dataset:
        """The run's data, as on the day of training. Raises DataError where they are not here any more."""
        try:
            data = data_of(self.config)
        except UsageError as error:
            raise DataError(
                f"{self.run_dir}: its data cannot be read: {error}; start in the folder where the run was trained, and "
                "put them back if they are gone"
            ) from None
        if data.fingerprint != self.config.data_fingerprint:
            raise DataError(
                f"{self.config.data} has fingerprint {data.fingerprint}, {self.run_dir} was trained on "
                f"{self.config.data_fingerprint}; put the data of that day back"
            )
        return data

    @property
    def table_size(self) -> int:
        """Rows of the data's training file, whatever split they are in."""
        return len(self.data.train.array)

    def table_rows(self, start: int, stop: int) -> Floats:
        """Rows of that file in its own order, as the model sees them."""
        whole = replace(self.data.train, start=0, stop=self.table_size, shuffled=False)
        rows = np.arange(start, stop, dtype=np.int64)
        return gather(whole, rows, np.empty((len(rows), whole.width), np.float32))

    @property
    def has_pictures(self) -> bool:
        """Whether rows are pictures."""
        return self.data.image_shape is not None

    def examples(self, split: str, start: int, stop: int) -> Floats:
        """Rows of a split as the model sees them."""
        return fixed_rows(self.config, self.data, split, start, stop)

    def rows(self, split: str, start: int = 0, stop: int | None = None) -> Rows:
        """Which rows of the data those of a split are, counted from 0 in what its `place` says; (rows,)."""
        part = self.data.split(split)
        return part.where(np.arange(start, len(part) if stop is None else stop, dtype=np.int64))

    def encode(self, split: str, *, seed: int | None = None) -> Floats:
        """z of the rows of a split, (rows, latent): at the posteriors' means, or with a seed drawn from them."""
        count = len(self.data.split(split))
        return np.concatenate([self._z(split, at, min(at + _CHUNK, count), seed) for at in range(0, count, _CHUNK)])

    def reconstruct(self, split: str, count: int) -> tuple[Floats, Floats]:
        """The first `count` examples of a split, and the means of what the model makes of them; (count, inputs)."""
        examples = self.examples(split, 0, min(count, len(self.data.split(split))))
        means = reconstruct(self.parameters, examples).astype(np.float32, copy=False)
        return x_of(examples, self.config.model.inputs), means

    def interpolate(self, split: str, pairs: int, steps: int) -> Floats:
        """Means along the lines between the z, and labels, of a split's first two rows, of the next two, ....

        (pairs, steps, inputs)
        """
        count = len(self.data.split(split))
        if count < 2 * pairs:
            raise UsageError(f"--pairs {pairs} are {2 * pairs:,} rows, and {split} has {count:,}; give fewer")
        z = self._seen(split, 0, 2 * pairs)
        along = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
        ways = z[0::2, None] * (1 - along) + z[1::2, None] * along
        return self._decode(ways)

    def traverse(self, split: str, row: int, dimensions: int, steps: int) -> tuple[list[int], Floats]:
        """Latent dimensions, and means (dimensions, steps, inputs) with each moved through the prior.

        The dimensions are those whose z varies most over the first rows of the split; the way is from the first to the
        last percent of the prior.

        row  of the data, as `rows` counts them
        """
        found = np.flatnonzero(self.rows(split) == row)
        if not found.size:
            raise self._elsewhere(split, row)
        place, count = int(found[0]), len(self.data.split(split))
        used = self._z(split, 0, min(count, _CHUNK)).var(axis=0)
        chosen = np.argsort(-used, kind="stable")[:dimensions]
        prior = sample_prior(self.parameters, _PRIOR_SAMPLES, seed=0)
        ways = np.repeat(np.repeat(self._seen(split, place, place + 1)[None], len(chosen), axis=0), steps, axis=1)
        for number, dimension in enumerate(chosen):
            low, high = np.quantile(prior[:, dimension], [0.01, 0.99])
            ways[number, :, dimension] = np.linspace(low, high, steps)
        return chosen.tolist(), self._decode(ways)

    def sample(self, count: int, seed: int, label: str | None = None, *, draws: bool = False) -> Floats:
        """Means of p(x|z) for `count` z from the prior, (count, inputs).

        label  of all of them, where the model is conditioned on labels; None: every label in turn
        draws  x drawn from p(x|z) in the place of its mean; the z are the same
        """
        z = sample_prior(self.parameters, count, seed=seed)
        if self.config.model.classes:
            z = np.concatenate([z, np.eye(self.config.model.classes, dtype=z.dtype)[self.labels(count, label)]], axis=1)
        elif label is not None:
            raise UsageError(f"--label {label}: {self.run_dir} was trained without --condition; leave --label out")
        return draw(self.parameters, z, seed=seed).astype(np.float32, copy=False) if draws else self._decode(z)

    def labels(self, count: int, label: str | None = None) -> npt.NDArray[np.int64]:
        """Numbers of the classes of `count` samples: all of one label, or every one in turn."""
        if label is None:
            return np.arange(count, dtype=np.int64) % self.config.model.classes
        classes = self.data.classes
        if label not in classes:
            known = ", ".join(classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
            same = [name for name in classes if _number_of(name) == _number_of(label)]
            hint = f"; it is read as a number: give --label {same[0]}" if same else ""
            raise UsageError(f"--label {label}: {self.config.condition} is one of {known}{hint}")
        return np.full(count, classes.index(label))

    def _elsewhere(self, split: str, row: int) -> UsageError:
        place = self.data.split(split).place
        others = [name for name in SPLITS if getattr(self.data, name).place == place and len(getattr(self.data, name))]
        where = [name for name in others if row in self.rows(name)]
        hint = f"it is one of {where[0]}: give --split {where[0]}" if where else "rows are counted from 0"
        return UsageError(f"--row {row} of {place} is not in {split}; {hint}")

    def _seen(self, split: str, start: int, stop: int) -> Floats:
        """What the decoder sees of rows at their posteriors' means: z, and their labels."""
        return joined(self._z(split, start, stop), self.examples(split, start, stop), self.config.model.inputs)

    def _z(self, split: str, start: int, stop: int, seed: int | None = None) -> Floats:
        mean, log_variance = encode(self.parameters, self.examples(split, start, stop))
        u = np.ascontiguousarray(mean)
        if seed is not None:
            noise = np.empty_like(u)
            standard_normal(noise, seed=seed, stream=Stream.ENCODING, step=0, rows=np.arange(start, stop))
            u += np.exp(0.5 * log_variance) * noise
        return latent_of(self.parameters, u).astype(np.float32, copy=False)

    def _decode(self, z: Floats) -> Floats:
        """Of z (..., latent + classes): (..., inputs)."""
        flat = decode(self.parameters, np.ascontiguousarray(z.reshape(-1, z.shape[-1])))
        return flat.reshape(*z.shape[:-1], -1).astype(np.float32, copy=False)


def _number_of(label: str) -> float:
    """NaN, which equals nothing, for words."""
    try:
        return float(label)
    except ValueError:
        return math.nan


def _number(version: str, folder: RunFolder) -> int | None:
    if version.isascii() and version.isdecimal():
        return int(version)
    if version == "newest":
        return None
    if version != "best":
        raise UsageError(f"--version {version}: give a number, newest or best")
    best = Best.of(folder.metrics()).version
    if best is None:
        raise UsageError(f"{folder.path} has no validation figures, so no best version; leave --version out")
    return best
