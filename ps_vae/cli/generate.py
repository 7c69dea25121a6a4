"""`ps-vae sample` and `ps-vae reconstruct`: what a model makes of the prior, and of rows; as pictures or arrays."""

from pathlib import Path
from typing import Annotated

import typer

from ps_vae.cli.options import OUTPUT, Debug, Run, Seed, SplitName
from ps_vae.cli.output import check_output, write_array
from ps_vae.cli.terminal import say
from ps_vae.errors import UsageError

__all__ = ["reconstruct", "sample"]

_KINDS = (".png", ".npy")

Count = Annotated[int, typer.Option("--count", metavar="N", min=1, rich_help_panel=OUTPUT, help="How many.")]
Samples = Annotated[
    Path | None,
    typer.Option(
        "--output", metavar="FILE", rich_help_panel=OUTPUT, show_default="RUN/pictures/samples.png",
        help="FILE.png for a picture, FILE.npy for the means (count, inputs).",
    ),
]
Reconstructions = Annotated[
    Path | None,
    typer.Option(
        "--output", metavar="FILE", rich_help_panel=OUTPUT, show_default="RUN/pictures/reconstructions.png",
        help="FILE.png for originals above their reconstructions, FILE.npy for both (2, count, inputs).",
    ),
]


def sample(run: Run, count: Count = 100, output: Samples = None, seed: Seed = 0, debug: Debug = False) -> None:
    """Draw samples from the prior and decode them.

    Example: [bold]ps-vae sample runs/mnist-5k-1 --count 64 --output samples.png[/bold]
    """
    path = _path(run, output, "samples")
    from ps_vae.train.trained import TrainedModel

    model = TrainedModel.open(run, say=say)
    if path.suffix == ".npy":
        write_array(path, model.sample(count, seed))
        return
    from ps_vae.cli import pictures

    shape, scale = _picture(model)
    pictures.draw_grid(path, model.sample(count, seed), shape, title=f"{count} samples from the prior")
