"""A trained model in one file: safetensors, with what it is and a digest of everything in the metadata."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.errors import CheckpointError, UsageError
from ps_vae.train.checkpoint import digest_of, vector_of
from ps_vae.train.config import RunConfig
from ps_vae.train.durable import replace_file
from ps_vae.vae.layout import ParameterLayout

__all__ = ["read_model", "write_model"]

_FORMAT = "ps_vae.VAE 1"


def write_model(path: Path, about: dict[str, Any], layout: ParameterLayout, weights: npt.NDArray[np.float32]) -> None:
    """Whole or not at all. about: plain data and NumPy's numbers; "config" is that of the run.

    Raises UsageError for anything else among them.
    """
    from safetensors.numpy import save

    tensors = {name: view.copy() for name, view in layout.views(weights).items()}
    metadata = {"format": _FORMAT, "about": json.dumps(about, default=_plain)}
    metadata["sha256"] = digest_of(tensors, metadata)
    replace_file(path, save(tensors, metadata))


def read_model(path: Path) -> tuple[dict[str, Any], RunConfig, npt.NDArray[np.float32]]:
    """What was written about it, the configuration, the weights. Raises CheckpointError for anything else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["format"] != _FORMAT:
            raise ValueError(f"its format is {metadata['format']}, this version reads {_FORMAT}")
        if metadata["sha256"] != digest_of(tensors, metadata):
            raise ValueError("its digest is another: the file is damaged")
        about = json.loads(metadata["about"])
        config = RunConfig.from_json(about["config"])
        return about, config, vector_of(ParameterLayout(config.model), tensors, "")
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path} is no model that VAE.save has written: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise UsageError(f"a parameter is {value!r}, which has no place in a file; set it to a plain number or word")
