"""`ps-vae interpolate` and `ps-vae traverse`: what lies between rows, and what each latent dimension does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ps_vae.cli.options import DATA, OUTPUT, Debug, Run, SplitName, Version, with_default
from ps_vae.cli.output import checked_output, output_of, say_written, write_array, write_table
from ps_vae.cli.terminal import say

if TYPE_CHECKING:
    from ps_vae.train.trained import Floats, TrainedModel

__all__ = ["interpolate", "traverse"]

Pairs = Annotated[
    int,
    typer.Option(
        "--pairs", metavar="N", min=1, rich_help_panel=OUTPUT, help="The split's first two rows, the next two: so many."
    ),
]
Row = Annotated[
    int | None,
    typer.Option(
        "--row",
        metavar="N",
        min=0,
        rich_help_panel=DATA,
        show_default=False,
        help=with_default(
            "Where to start from: a row of the split by its place in the file, from 0, as score shows it.", "its first"
        ),
    ),
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
            "FILE.png for pictures, FILE.csv or FILE.npy for the means (pairs, steps, inputs).", "interpolations in RUN"
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
            "FILE.png for pictures, FILE.csv or FILE.npy for the means (dimensions, steps, inputs).",
            "traversals in RUN",
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
    path = checked_output(output, run, ".png", ".csv", ".npy")
    from ps_vae.train.trained import TrainedModel

    model = TrainedModel.open(run, version=version, say=say)
    path = path or output_of(run, "interpolations", are_pictures=model.has_pictures)
    means = model.interpolate(split, pairs, steps)
    if path.suffix == ".png":
        from ps_vae.cli.run_pictures import picture_grid

        picture_grid(model, path, means, [""] * len(means), f"between rows of {split}, version {model.version:,}")
        say_written(path, f"{len(means)} pairs of {split}, {steps} steps each")
    else:
        _write(path, model, means, "pair", list(range(len(means))))


def traverse(
    run: Run,
    split: SplitName = "test",
    row: Row = None,
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
    path = checked_output(output, run, ".png", ".csv", ".npy")
    from ps_vae.train.trained import TrainedModel

    model = TrainedModel.open(run, version=version, say=say)
    path = path or output_of(run, "traversals", are_pictures=model.has_pictures)
    row = int(model.rows(split, 0, 1)[0]) if row is None else row
    moved, means = model.traverse(split, row, dimensions, steps)
    if path.suffix == ".png":
        from ps_vae.cli.run_pictures import picture_grid

        labels = [f"z[{dimension}]" for dimension in moved]
        picture_grid(model, path, means, labels, f"{split} row {row}, version {model.version:,}")
        say_written(path, f"{len(moved)} dimensions of {split} row {row}, {steps} steps each")
    else:
        _write(path, model, means, "dimension", moved)


def _write(path: Path, model: "TrainedModel", means: "Floats", what: str, numbers: list[int]) -> None:
    """Means (ways, steps, inputs), with the number of each way."""
    if path.suffix == ".npy":
        write_array(path, means)
        return
    ways = zip(numbers, means, strict=True)
    rows = ([number, step, *values] for number, way in ways for step, values in enumerate(way))
    write_table(path, [what, "step", *model.data.columns], rows)
