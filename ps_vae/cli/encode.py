"""`ps-vae encode`: z of rows, as an array or a table."""

from pathlib import Path
from typing import Annotated

import typer

from ps_vae.cli.options import OUTPUT, Debug, Run, Seed, SplitName, Version, with_default
from ps_vae.cli.output import apart_from_data, checked_output, counted_in, write_array, write_arrays, write_table
from ps_vae.cli.terminal import say

__all__ = ["encode"]

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help=with_default(
            "FILE.npy for the array (rows, latent) of float32, in the order of the data; FILE.npz for it as z, and as "
            "row which rows of the data they are; FILE.csv for both.",
            "RUN/encoded-SPLIT.npy",
        ),
    ),
]


Draw = Annotated[
    bool,
    typer.Option("--draw", rich_help_panel=OUTPUT, help="A sample of each row's posterior (--seed), not its mean."),
]


def encode(
    run: Run,
    split: SplitName = "test",
    version: Version = "newest",
    seed: Seed = 0,
    draw: Draw = False,
    output: Output = None,
    debug: Debug = False,
) -> None:
    """Write z of each row, at the posterior's mean, in the order of the data.

    A row's number is its place in the file that it comes from, counted from 0; a line of column names is none.

    Example: [bold]ps-vae encode runs/mnist-5k-1 --split test --output latent.npy[/bold]
    """
    path = checked_output(output, run, ".npy", ".npz", ".csv") or apart_from_data(run / f"encoded-{split}.npy", run)
    from ps_vae.train.trained import TrainedModel

    model = TrainedModel.open(run, version=version, say=say)
    z, row, place = model.encode(split, seed=seed if draw else None), model.rows(split), model.data.split(split).place
    order = row.argsort()
    z, row = z[order], row[order]
    if path.suffix == ".npy":
        write_array(path, z, f"in the order of {place}")
    elif path.suffix == ".npz":
        write_arrays(path, {"z": z, "row": row}, counted_in(place))
    else:
        columns = ["row", *(f"z{dimension}" for dimension in range(z.shape[1]))]
        rows = ([number, *values] for number, values in zip(row.tolist(), z, strict=True))
        write_table(path, columns, rows, counted_in(place))
