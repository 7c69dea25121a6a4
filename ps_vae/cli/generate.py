"""`ps-vae sample` and `ps-vae reconstruct`: what a model makes of the prior, and of rows; as pictures or arrays."""

from pathlib import Path
from typing import Annotated

import typer

from ps_vae.cli.options import OUTPUT, Debug, Run, Seed, SplitName, Version, with_default
from ps_vae.cli.output import checked_output, say_written, write_array
from ps_vae.cli.terminal import say

__all__ = ["reconstruct", "sample"]

Count = Annotated[int, typer.Option("--count", metavar="N", min=1, rich_help_panel=OUTPUT, help="How many.")]
Samples = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help=with_default(
            "FILE.png for a picture, FILE.npy for the means (count, inputs).", "RUN/pictures/samples.png"
        ),
    ),
]
Reconstructions = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help=with_default(
            "FILE.png for originals above their reconstructions, FILE.npy for both (2, count, inputs).",
            "RUN/pictures/reconstructions.png",
        ),
    ),
]


def sample(
    run: Run,
    seed: Seed = 0,
    version: Version = "newest",
    count: Count = 100,
    output: Samples = None,
    debug: Debug = False,
) -> None:
    """Decode samples from the prior: what the model thinks data look like.

    Example: [bold]ps-vae sample runs/mnist-5k-1 --count 64 --output samples.png[/bold]
    """
    path = checked_output(output, run / "pictures" / "samples.png", pictures=True)
    from ps_vae.train.trained import TrainedModel

    model = TrainedModel.open(run, version=version, say=say)
    if path.suffix == ".npy":
        write_array(path, model.sample(count, seed))
        return
    from ps_vae.cli.run_pictures import picture_samples

    path.parent.mkdir(exist_ok=True)
    picture_samples(model, path, count, seed)
    say_written(path, f"{count} samples")


def reconstruct(
    run: Run,
    split: SplitName = "test",
    version: Version = "newest",
    count: Count = 20,
    output: Reconstructions = None,
    debug: Debug = False,
) -> None:
    """Encode rows and decode them again: what the model keeps of them.

    Example: [bold]ps-vae reconstruct runs/mnist-5k-1 --count 40 --output reconstructions.png[/bold]
    """
    path = checked_output(output, run / "pictures" / "reconstructions.png", pictures=True)
    from ps_vae.train.trained import TrainedModel

    model = TrainedModel.open(run, version=version, say=say)
    if path.suffix == ".npy":
        import numpy as np

        write_array(path, np.stack(model.reconstruct(split, count)))
        return
    from ps_vae.cli.run_pictures import picture_reconstructions

    path.parent.mkdir(exist_ok=True)
    picture_reconstructions(model, path, split, count)
    say_written(path, f"{count} rows of {split} and their reconstructions")
