"""`ps-vae encode`: the latent means of rows, as an array."""

from pathlib import Path
from typing import Annotated

import typer

from ps_vae.cli.options import OUTPUT, Debug, Run, Seed, SplitName, Version, with_default
from ps_vae.cli.output import checked_output, write_array
from ps_vae.cli.terminal import say

__all__ = ["encode"]

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help=with_default("FILE.npy for the array (rows, latent) of float32.", "RUN/encoded-SPLIT.npy"),
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
    """Write z of each row, at the posterior's mean, to a .npy file.

    Example: [bold]ps-vae encode runs/mnist-5k-1 --split test --output latent.npy[/bold]
    """
    path = checked_output(output, ".npy") or run / f"encoded-{split}.npy"
    from ps_vae.train.trained import TrainedModel

    write_array(path, TrainedModel.open(run, version=version, say=say).encode(split, seed=seed if draw else None))
