"""Checkpoints: all that a run needs to go on, in one safetensors file a version.

    checkpoints/step-00001234.safetensors
        encoder.0.weight, …                  float32, the layout's names and shapes
        optimizer/NAME/encoder.0.weight, …   the same of each array of the optimizer's state
        metrics                              float64: what the last step's examples summed to
        metadata                             version, model, and sha256 of these and of all tensors

A file is written under a temporary name, flushed to disk, and renamed (durable.py): what has the right name is whole,
or the disk has lied, which the digest tells.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import save

from ps_vae.errors import CheckpointError
from ps_vae.lines import WARNING, Line
from ps_vae.ps.state import ShardState
from ps_vae.train.durable import make_folder, replace_file
from ps_vae.vae.config import ModelConfig
from ps_vae.vae.layout import ParameterLayout

__all__ = [
    "Checkpoint",
    "Damaged",
    "Spare",
    "digest_of",
    "list_checkpoints",
    "newest",
    "newest_version",
    "prune",
    "read",
    "vector_of",
    "versions_in",
    "write",
]

_ABOUT = "ps_vae"
_NAME = re.compile(r"step-(\d{8,})\.safetensors")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run at one version: whole vectors, in the layout's order."""

    state: ShardState
    metrics: tuple[float, ...]

    @property
    def version(self) -> int:
        return self.state.version


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that was passed over, and why."""

    path: Path
    why: str

    @property
    def line(self) -> Line:
        """What is said of it."""
        text = "WARNING: {why}; the checkpoint before it is used"
        return Line("checkpoint-damaged", text, level=WARNING, path=str(self.path), why=self.why)


def write(folder: Path, layout: ParameterLayout, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint; when this returns it is on the disk. Raises OSError where the disk refuses."""
    tensors: dict[str, npt.NDArray[np.generic]] = dict(layout.views(checkpoint.state.weights))
    for name, vector in checkpoint.state.optimizer.items():
        tensors |= {f"optimizer/{name}/{tensor}": view for tensor, view in layout.views(vector).items()}
    tensors["metrics"] = np.array(checkpoint.metrics, np.float64)
    metadata = {
        "version": str(checkpoint.version),
        "model": json.dumps(asdict(layout.config)),
        "optimizer": json.dumps(list(checkpoint.state.optimizer)),
    }
    metadata["sha256"] = digest_of(tensors, metadata)
    # One entry: safetensors writes several in any order, and the same run is to make the same file.
    about = {_ABOUT: json.dumps(metadata, sort_keys=True)}
    content = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, about)
    make_folder(folder)
    path = folder / f"step-{checkpoint.version:08d}.safetensors"
    replace_file(path, content)
    return path


Spare = Callable[[Sequence[int]], Collection[int]]
"""Which of these versions, the newest first, stay on the disk though they would have to go."""


def prune(folder: Path, version: int, *, keep: int, spare: Spare = lambda versions: ()) -> None:
    """Of the checkpoint of `version` and those before it let only the `keep` newest stay, and those that are spared.

    Raises OSError.

    A later one is a damaged one that was passed over: it is left alone until the run comes to its version again.
    """
    older = dict([(found, path) for found, path in versions_in(folder) if found <= version][keep:])
    for found in set(older).difference(spare(list(older))):
        older[found].unlink(missing_ok=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoint files of a folder, newest first."""
    return [path for _, path in versions_in(folder)]


def newest_version(folder: Path) -> int:
    """By the files' names; 0 where there is none."""
    return max((version for version, _ in versions_in(folder)), default=0)


def newest(folder: Path, layout: ParameterLayout, damaged: list[Damaged]) -> Checkpoint | None:
    """The newest whole checkpoint; those that were passed over are added to `damaged`. None where there is none.

    Raises CheckpointError where a whole one belongs to another model.
    """
    for path in list_checkpoints(folder):
        try:
            return read(path, layout)
        except _DamageError as error:
            damaged.append(Damaged(path, str(error)))
    return None


def read(path: Path, layout: ParameterLayout) -> Checkpoint:
    """Read and verify one file. Raises CheckpointError, which names the file and what is wrong."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError, AttributeError) as error:
        # AttributeError: of numbers that NumPy has no type for.
        raise _DamageError(f"{path}: cannot be read ({error})") from None
    if not isinstance(metadata, dict) or metadata.get("sha256") != digest_of(tensors, metadata):
        raise _DamageError(f"{path}: its contents do not match its digest; the file is damaged")
    _check_model(path, layout, tensors)
    try:
        return _checkpoint(path, layout, tensors, metadata)
    except (KeyError, TypeError, ValueError) as error:
        text = f"{path}: is whole, but cannot be understood ({error!r}); was it written by another version?"
        raise CheckpointError(text) from None


class _DamageError(CheckpointError):
    """Not whole, so that an older one may be used."""


def _check_model(path: Path, layout: ParameterLayout, tensors: dict[str, npt.NDArray[np.generic]]) -> None:
    for tensor in layout:
        found = tensors.get(tensor.name)
        if found is None or found.shape != tensor.shape:
            what = "has no" if found is None else f"has {found.shape} as"
            raise CheckpointError(
                f"{path}: {what} {tensor.name}, this run expects {tensor.shape}; it was written by another model: "
                f"start with that model's options or another --run-dir"
            )


def _checkpoint(
    path: Path, layout: ParameterLayout, tensors: dict[str, npt.NDArray[np.generic]], metadata: dict[str, str]
) -> Checkpoint:
    written_by = ModelConfig(**json.loads(metadata["model"]))
    if written_by != layout.config:
        raise CheckpointError(
            f"{path}: was written by {written_by}, this run is {layout.config}; start another --run-dir"
        )
    names: list[str] = json.loads(metadata["optimizer"])
    optimizer = {name: vector_of(layout, tensors, f"optimizer/{name}/") for name in names}
    metrics = tuple(tensors["metrics"].tolist())
    # In the state, too: a run that goes on and stops before its first step writes this checkpoint again.
    state = ShardState(int(metadata["version"]), vector_of(layout, tensors, ""), optimizer, metrics=metrics)
    return Checkpoint(state, metrics)


def vector_of(
    layout: ParameterLayout, tensors: dict[str, npt.NDArray[np.generic]], prefix: str
) -> npt.NDArray[np.float32]:
    """The tensors whose names begin so, as one vector. Raises KeyError where one is missing, ValueError where it has
    another shape or dtype.
    """
    vector: npt.NDArray[np.float32] = layout.zeros()
    for name, view in layout.views(vector).items():
        found = tensors[prefix + name]
        if (found.shape, found.dtype) != (view.shape, view.dtype):
            raise ValueError(f"{prefix}{name} is {found.dtype} {found.shape}, not {view.dtype} {view.shape}")
        view[...] = found
    return vector


def digest_of(tensors: dict[str, npt.NDArray[np.generic]], metadata: dict[str, str]) -> str:
    """SHA-256 of all tensors and of the metadata, but for a digest that is in there."""
    told = {name: text for name, text in metadata.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, piece in _pieces(tensors):
        digest.update(name)
        digest.update(piece)
    return digest.hexdigest()


def _pieces(tensors: dict[str, npt.NDArray[np.generic]]) -> Iterator[tuple[bytes, bytes]]:
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        yield f"{name} {array.dtype.str} {array.shape}".encode(), array.tobytes()


def versions_in(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoint files of a folder by their versions, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)
