"""`ps-vae impute`: a table's missing values, filled in."""

from pathlib import Path
from typing import Annotated

import typer

from ps_vae.cli import progress
from ps_vae.cli.options import OUTPUT, Debug, Processes, Version, one_per_core, with_default
from ps_vae.cli.output import apart_from_data, checked_output, say_written
from ps_vae.cli.terminal import say

__all__ = ["impute"]

_SHOWN = 5

Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a table's run, such as runs/people-1.", show_default=False)
]
Samples = Annotated[
    int,
    typer.Option("--samples", metavar="N", min=1, rich_help_panel=OUTPUT, help="Importance samples a row."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help=with_default("FILE.csv or FILE.parquet for the whole table.", "imputed in RUN"),
    ),
]


def impute(
    run: Run,
    version: Version = "newest",
    processes: Processes = None,
    samples: Samples = 500,
    output: Output = None,
    debug: Debug = False,
) -> None:
    """Write the run's table with its missing values filled in: numbers by their expectation, words and bits by the
    likeliest.

    Example: [bold]ps-vae impute runs/people-1 --output filled.csv[/bold]
    """
    path = checked_output(output, run, ".csv", ".parquet")
    from ps_vae.data.filling import check_target, filled_table, is_text, write_table_file
    from ps_vae.train.imputation import impute_table, table_of

    source = table_of(run)
    path = path or apart_from_data(run / ("imputed.csv" if is_text(source) else "imputed.parquet"), run)
    check_target(source, path)
    with progress.counting("rows") as show:
        columns, features = impute_table(
            run, samples=samples, processes=processes or one_per_core(), progress=show, say=say, version=version
        )
    table, filled = filled_table(source, path, columns, features)
    write_table_file(path, table)
    say_written(path, f"{table.num_rows:,} rows of {table.num_columns:,} columns, {filled.values:,} values filled in")
    if filled.left:
        shown = ", ".join(map(str, filled.left[:_SHOWN])) + (", ..." if len(filled.left) > _SHOWN else "")
        say(
            f"WARNING: values stay missing in {len(filled.left):,} of the rows (counted from 0: {shown}), for the rest "
            "of such a row is impossible for the model; look for a wrong unit, or a code for what is missing"
        )
