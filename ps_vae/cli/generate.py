"""`ps-vae sample` and `ps-vae reconstruct`: what a model makes of the prior, and of rows; as pictures or arrays."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ps_vae.cli.options import MODEL, OUTPUT, Debug, Run, Seed, SplitName, Version, with_default
from ps_vae.cli.output import checked_output, counted_in, output_of, say_written, write_array, write_table
from ps_vae.cli.terminal import say

if TYPE_CHECKING:
    from ps_vae.data import Column
    from ps_vae.train.trained import Floats, TrainedModel

__all__ = ["reconstruct", "sample"]

Count = Annotated[int, typer.Option("--count", metavar="N", min=1, rich_help_panel=OUTPUT, help="How many.")]
Label = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="NAME",
        rich_help_panel=MODEL,
        show_default=False,
        help=with_default("What all are conditioned on, in a run with --condition.", "every label in turn"),
    ),
]
Draw = Annotated[
    bool,
    typer.Option(
        "--draw", rich_help_panel=OUTPUT, help="x drawn from p(x|z) (--seed), as data are, not the mean of p(x|z)."
    ),
]
Samples = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help=with_default(
            "FILE.png for a picture, FILE.csv or FILE.npy for the array (count, inputs).", "samples in RUN"
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
            "FILE.png for originals above their reconstructions; FILE.csv with the rows' numbers, or FILE.npy "
            "(2, count, inputs), in the order of the data.",
            "reconstructions in RUN",
        ),
    ),
]


def sample(
    run: Run,
    seed: Seed = 0,
    version: Version = "newest",
    count: Count = 100,
    label: Label = None,
    draw: Draw = False,
    output: Samples = None,
    debug: Debug = False,
) -> None:
    """Decode samples from the prior: what the model thinks data look like.

    Example: [bold]ps-vae sample runs/mnist-5k-1 --count 64 --output samples.png[/bold]
    """
    path = checked_output(output, run, ".png", ".csv", ".npy")
    from ps_vae.train.trained import TrainedModel

    model = TrainedModel.open(run, version=version, say=say)
    path = path or output_of(run, "samples", are_pictures=model.has_pictures)
    if path.suffix == ".npy":
        write_array(path, model.sample(count, seed, label, draws=draw))
    elif path.suffix == ".csv":
        write_table(path, *_samples(model, count, seed, label, draw))
    else:
        from ps_vae.cli.run_pictures import picture_samples

        picture_samples(model, path, count, seed, label, draws=draw)
        say_written(path, f"{count} samples")


def _samples(
    model: "TrainedModel", count: int, seed: int, label: str | None, draws: bool
) -> tuple[list[str], Sequence[Iterable[object]]]:
    """A table, with what rows are conditioned on in front: its columns, and rows; draws have the data's cells."""
    x = model.sample(count, seed, label, draws=draws)
    rows: Sequence[Iterable[object]]
    if draws and model.data.variables:
        columns = [column.name for column in model.data.variables]
        rows = [_cells(model.data.variables, row) for row in x]
    else:
        columns, rows = list(model.data.columns), list(x)
    if not model.config.model.classes:
        return columns, rows
    classes, numbers = model.data.classes, model.labels(count, label)
    return [model.config.condition, *columns], [[classes[n], *row] for n, row in zip(numbers, rows, strict=True)]


def _cells(columns: "tuple[Column, ...]", features: "Floats") -> list[object]:
    ends = accumulate(column.features for column in columns)
    return [column.cell(features[end - column.features : end]) for column, end in zip(columns, ends, strict=True)]


def reconstruct(
    run: Run,
    split: SplitName = "test",
    version: Version = "newest",
    count: Count = 20,
    output: Reconstructions = None,
    debug: Debug = False,
) -> None:
    """Encode rows and decode them again: what the model keeps of them.

    A row's number is its place in the file that it comes from, counted from 0; a line of column names is none.

    Example: [bold]ps-vae reconstruct runs/mnist-5k-1 --count 40 --output reconstructions.png[/bold]
    """
    path = checked_output(output, run, ".png", ".csv", ".npy")
    from ps_vae.train.trained import TrainedModel

    model = TrainedModel.open(run, version=version, say=say)
    path = path or output_of(run, "reconstructions", are_pictures=model.has_pictures)
    if path.suffix == ".png":
        from ps_vae.cli.run_pictures import picture_reconstructions

        shown = picture_reconstructions(model, path, split, count)
        say_written(path, f"{shown:,} rows of {split} and their reconstructions")
        return
    import numpy as np

    pair = np.stack(model.reconstruct(split, count))
    rows, place = model.rows(split, 0, pair.shape[1]), model.data.split(split).place
    order = rows.argsort()
    rows, pair = rows[order], pair[:, order]
    if path.suffix == ".npy":
        write_array(path, pair, f"in the order of {place}")
    else:
        names = model.data.columns
        columns = ["row", *names, *(f"{name} reconstructed" for name in names)]
        both = zip(rows.tolist(), pair.swapaxes(0, 1), strict=True)
        write_table(path, columns, ([row, *values.ravel()] for row, values in both), counted_in(place))
