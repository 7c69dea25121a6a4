"""`ps-vae score`: how unlikely each row is, to find those that do not belong."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ps_vae.cli import progress
from ps_vae.cli.evaluate import Limit
from ps_vae.cli.options import OUTPUT, Debug, Json, Processes, Run, SplitName, Version, one_per_core, with_default
from ps_vae.cli.output import apart_from_data, checked_output, counted_in, write_table
from ps_vae.cli.terminal import nats, print_json, print_table, say

if TYPE_CHECKING:
    from ps_vae.train.evaluation import RowScores

__all__ = ["score"]

Samples = Annotated[
    int,
    typer.Option("--samples", metavar="N", min=2, rich_help_panel=OUTPUT, help="Importance samples a row."),
]
Top = Annotated[
    int, typer.Option("--top", metavar="N", min=1, rich_help_panel=OUTPUT, help="Show so many, the least likely first.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help=with_default("FILE.csv for all rows.", "RUN/scores-SPLIT.csv"),
    ),
]

_COLUMNS = ("row", "score", "standard_error", "effective_samples")


def score(
    run: Run,
    split: SplitName = "test",
    limit: Limit = None,
    version: Version = "newest",
    processes: Processes = None,
    samples: Samples = 500,
    top: Top = 10,
    output: Output = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write -log p(x) of each row, its anomaly score, in nats and with its standard error; show the highest.

    A row's number is its place in the file that it comes from, counted from 0; a line of column names is none.

    Example: [bold]ps-vae score runs/mnist-5k-1 --split test --top 20[/bold]
    """
    path = checked_output(output, run, ".csv") or apart_from_data(run / f"scores-{split}.csv", run)
    from ps_vae.train import evaluation

    with progress.counting("rows") as show:
        place, scores = evaluation.score_rows(
            run,
            split=split,
            samples=samples,
            processes=processes or one_per_core(),
            limit=limit,
            progress=show,
            say=say,
            version=version,
        )
    if json:
        with contextlib.redirect_stdout(sys.stderr):
            write_table(path, _COLUMNS, scores.rows(), counted_in(place))
        print_json({"split": split, "rows_of": place, "output": str(path), "top": _top(scores, top)})
        return
    print_table([(f"row {each['row']:,}", _in_words(each, samples)) for each in _top(scores, top)])
    write_table(path, _COLUMNS, scores.rows(), counted_in(place))


def _in_words(row: dict[str, float], samples: int) -> str:
    size = f"{row['effective_samples']:,.1f} of {samples:,} samples count"
    return f"{nats(row['score'])} ± {nats(row['standard_error'])} nats; {size}"


def _top(scores: "RowScores", count: int) -> list[dict[str, float]]:
    # What is no number comes first: nothing is less likely.
    highest = sorted(scores.rows(), key=lambda row: (row[1] == row[1], -row[1]))[:count]
    return [dict(zip(_COLUMNS, row, strict=True)) for row in highest]
