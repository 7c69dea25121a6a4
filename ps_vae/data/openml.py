"""MNIST, fetched once from openml.org and kept as one .npy file that all processes of a node share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ps_vae.data.arrays import Arrays, checked
from ps_vae.data.cache import cached
from ps_vae.data.labels import Labels, labels_of
from ps_vae.data.packaged import missing_package
from ps_vae.errors import DataError, UsageError

__all__ = ["Fetch", "fetch_openml", "mnist"]

Fetch = Callable[[], tuple[npt.NDArray[Any], npt.NDArray[Any]]]
"""Returns MNIST's pixels (70000, 784), 0 to 255, the 60,000 training images first, and their digits (70000,)."""

_SHAPE = (70_000, 784)
_TRAINING = 60_000


def mnist(cache: Path, fetch: Fetch) -> Arrays:
    """60,000 training and 10,000 test images of 28x28.

    cache  folder where the parsed images are kept
    fetch  called where they are not there yet

    Raises DataError where openml.org does not answer or answers something else.
    """
    bits = np.dtype(np.uint8)
    images = cached(cache / "mnist-784.npy", bits, _SHAPE, lambda: _fetched(fetch)[0])
    images = images.reshape(-1, 28, 28)

    def labels() -> dict[str, Labels]:
        digits = cached(cache / "mnist-784-labels.npy", bits, _SHAPE[:1], lambda: _fetched(fetch)[1])
        train, test = labels_of("mnist", digits[:_TRAINING], digits[_TRAINING:])
        return {"train": train, "test": test}

    return checked("mnist", {"train": images[:_TRAINING], "test": images[_TRAINING:]}, labels=labels)


def fetch_openml() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Fetch through scikit-learn, which keeps a copy of its own."""
    try:
        from sklearn.datasets import fetch_openml as fetch

        answer = fetch("mnist_784", version=1, as_frame=False)
    except ImportError as error:
        raise missing_package("mnist", error.name or "scikit-learn") from error
    return answer.data, answer.target.astype(np.int64)


def _fetched(fetch: Fetch) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    try:
        pixels, digits = fetch()
    except UsageError:
        raise
    # URLError and time-outs are OSError; an answer that is no data set, or a damaged one, is ValueError.
    except (OSError, ValueError) as error:
        raise DataError(
            f"mnist: openml.org did not deliver ({error}); give a folder with MNIST's IDX files, or use mnist-5k"
        ) from error
    is_whole = pixels.shape == _SHAPE and digits.shape == _SHAPE[:1]
    if not is_whole or not ((pixels >= 0) & (pixels <= 255)).all() or not ((digits >= 0) & (digits <= 9)).all():
        raise DataError(
            f"mnist: openml.org sent {pixels.shape} {pixels.dtype}, not {_SHAPE} pixels with a digit each; give the "
            "IDX files"
        )
    return pixels.astype(np.uint8), digits.astype(np.uint8)
