"""`ps-vae interpolate` and `ps-vae traverse`: what lies between rows, and what each latent dimension does."""

from pathlib import Path
from typing import Annotated

import typer

from ps_vae.cli.options import DATA, OUTPUT, Debug, Run, SplitName, Version, with_default
from ps_vae.cli.output import checked_output, say_written, write_array
from ps_vae.cli.terminal import say

__all__ = ["interpolate", "traverse"]

Pairs = Annotated[
    int,
    typer.Option("--pairs", metavar="N", min=1, rich_help_panel=OUTPUT, help="Rows 0 and 1, 2 and 3, so many."),
]
Row = Annotated[
    int, typer.Option("--row", metavar="N", min=0, rich_help_panel=DATA, help="Where to start from, counted from 0.")
]
Dimensions = Annotated[
    int,
    typer.Option(
        "--dimensions", metavar="N", min=1, rich_help_panel=OUTPUT, help="How many, those that the rows use most first."
    ),
]
Steps = Annotated[
    int, typer.Option("--steps", metavar="N", min=2, rich_help_panel=OUTPUT, help="Pictures on each way.")
]
Interpolations = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help=with_default(
            "FILE.png for pictures, FILE.npy for the means (pairs, steps, inputs).", "RUN/pictures/interpolations.png"
        ),
    ),
]
Traversals = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help=with_default(
            "FILE.png for pictures, FILE.npy for the means (dimensions, steps, inputs).", "RUN/pictures/traversals.png"
        ),
    ),
]


def interpolate(
    run: Run,
    split: SplitName = "test",
    version: Version = "newest",
    pairs: Pairs = 10,
    steps: Steps = 10,
    output: Interpolations = None,
    debug: Debug = False,
) -> None:
    """Decode the straight lines between the latent means of pairs of rows.

    Example: [bold]ps-vae interpolate runs/mnist-5k-1 --pairs 5 --output between.png[/bold]
    """
    path = checked_output(output, run / "pictures" / "interpolations.png", pictures=True)
    from ps_vae.train.trained import TrainedModel

    model = TrainedModel.open(run, version=version, say=say)
    means = model.interpolate(split, pairs, steps)
    if path.suffix == ".npy":
        write_array(path, means)
        return
    from ps_vae.cli.run_pictures import picture_grid

    path.parent.mkdir(exist_ok=True)
    picture_grid(model, path, means, [""] * len(means), f"between rows of {split}, version {model.version:,}")
    say_written(path, f"{len(means)} pairs of {split}, {steps} steps each")


def traverse(
    run: Run,
    split: SplitName = "test",
    row: Row = 0,
    version: Version = "newest",
    dimensions: Dimensions = 10,
    steps: Steps = 10,
    output: Traversals = None,
    debug: Debug = False,
) -> None:
    """Decode a row's latent mean with one dimension after the other moved through the prior, from its first to its last
    percent.

    Example: [bold]ps-vae traverse runs/mnist-5k-1 --row 3 --output dimensions.png[/bold]
    """
    path = checked_output(output, run / "pictures" / "traversals.png", pictures=True)
    from ps_vae.train.trained import TrainedModel

    model = TrainedModel.open(run, version=version, say=say)
    moved, means = model.traverse(split, row, dimensions, steps)
    if path.suffix == ".npy":
        write_array(path, means)
        return
    from ps_vae.cli.run_pictures import picture_grid

    path.parent.mkdir(exist_ok=True)
    labels = [f"z[{dimension}]" for dimension in moved]
    picture_grid(model, path, means, labels, f"{split} row {row}, version {model.version:,}")
    say_written(path, f"{len(moved)} dimensions of {split} row {row}, {steps} steps each")
