"""The pictures of a run: its loss curve, and, where its rows are images, reconstructions and samples."""

from collections.abc import Callable
from pathlib import Path

from ps_vae.cli import pictures
from ps_vae.errors import UsageError
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.trained import Floats, TrainedModel

__all__ = ["draw_run", "picture_grid", "picture_reconstructions", "picture_samples"]

_SAMPLES = 100
_RECONSTRUCTIONS = 20
# Rows from which the values that are black and white are taken.
_LOOKED_AT = 256


def draw_run(run_dir: Path, say: Callable[[str], None]) -> list[Path]:
    """Draw all pictures into the run's folder; returns their paths."""
    folder = RunFolder(run_dir)
    folder.pictures.mkdir(exist_ok=True)
    model = TrainedModel.open(run_dir, say=say)
    loss = folder.pictures / "loss.png"
    pictures.draw_loss(loss, folder.metrics(), title=f"{run_dir.name}: {model.config.data}")
    drawn = [loss]
    if model.data.image_shape is not None:
        split = next(name for name in ("test", "validation", "train") if len(getattr(model.data, name)))
        reconstructions, samples = folder.pictures / "reconstructions.png", folder.pictures / "samples.png"
        picture_reconstructions(model, reconstructions, split, _RECONSTRUCTIONS)
        picture_samples(model, samples, _SAMPLES, model.config.seed)
        drawn += [reconstructions, samples]
    return drawn


def picture_samples(
    model: TrainedModel, path: Path, count: int, seed: int, label: str | None = None, *, draws: bool = False
) -> None:
    """Samples of a model, as `TrainedModel.sample` says. UsageError where rows are no images."""
    shape = _shape(model)
    title = f"samples from the prior, version {model.version:,}"
    images = model.sample(count, seed, label, draws=draws)
    pictures.draw_samples(path, images, shape, span=_span(model), title=title)


def picture_reconstructions(model: TrainedModel, path: Path, split: str, count: int) -> int:
    """The first rows of a split above what the model makes of them; returns how many. UsageError for no images."""
    shape = _shape(model)
    originals, means = model.reconstruct(split, count)
    title = f"{split} rows, version {model.version:,}"
    pictures.draw_reconstructions(path, originals, means, shape, span=_span(model), title=title)
    return len(originals)


def picture_grid(model: TrainedModel, path: Path, images: Floats, labels: list[str], title: str) -> None:
    """Rows of images (rows, columns, inputs) with a label each. Raises UsageError where rows are no images."""
    pictures.draw_grid(path, images, _shape(model), labels=labels, span=_span(model), title=title)


def _shape(model: TrainedModel) -> tuple[int, int]:
    if model.data.image_shape is None:
        raise UsageError(f"rows of {model.config.data} are no images; give --output FILE.csv or FILE.npy")
    return model.data.image_shape


def _span(model: TrainedModel) -> tuple[float, float]:
    """0 and 1, which pixels are scaled to; the data's own range where it is another."""
    rows = model.examples("train", 0, min(_LOOKED_AT, len(model.data.train)))[:, : model.config.model.inputs]
    low, high = float(rows.min()), float(rows.max())
    return (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (low, high)
