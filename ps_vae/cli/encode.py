"""`ps-vae encode`: the latent means of rows, as an array."""

from pathlib import Path
from typing import Annotated

import typer

from ps_vae.cli.options import OUTPUT, Debug, Run, SplitName
from ps_vae.cli.output import check_output, write_array
from ps_vae.cli.terminal import say

__all__ = ["encode"]

Output = Annotated[
    Path | None,
    typer.Option(
        "--output", metavar="FILE", rich_help_panel=OUTPUT, show_default="RUN/encoded-SPLIT.npy",
        help="Where the array (rows, latent) of float32 goes: FILE.npy.",
    ),
]


def encode(run: Run, split: SplitName = "test", output: Output = None, debug: Debug = False) -> None:
    """Write the posterior mean of each row to a .npy file.

    Example: [bold]ps-vae encode runs/mnist-5k-1 --split test --output latent.npy[/bold]
    """
    if output is not None:
        check_output(output, [".npy"])
    from ps_vae.train.trained import TrainedModel

    means = TrainedModel.open(run, say=say).encode(split)
    write_array(output or run / f"encoded-{split}.npy", means)
