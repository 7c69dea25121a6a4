"""`ps-vae evaluate`: how good a model is, in nats per example."""

from typing import Annotated, Any

import typer

from ps_vae.cli import progress
from ps_vae.cli.options import DATA, OUTPUT, Debug, Json, Processes, Run, SplitName, Version, one_per_core, with_default
from ps_vae.cli.terminal import count, nats, print_json, print_table, say

__all__ = ["evaluate"]

Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        min=1,
        rich_help_panel=DATA,
        show_default=False,
        help=with_default("Only N rows of the split.", "all"),
    ),
]
Samples = Annotated[
    int,
    typer.Option(
        "--samples",
        metavar="N",
        min=0,
        rich_help_panel=OUTPUT,
        help="Importance samples a row for -log p(x), such as 5000 (Burda et al. 2016); 0: only the ELBO.",
    ),
]


def evaluate(
    run: Run,
    split: SplitName = "test",
    limit: Limit = None,
    version: Version = "newest",
    processes: Processes = None,
    samples: Samples = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a trained model: ELBO, its two parts, and -log p(x).

    Example: [bold]ps-vae evaluate runs/mnist-5k-1 --samples 5000[/bold]
    """
    from ps_vae.train import evaluation

    with progress.counting("rows") as show:
        result = evaluation.evaluate(
            run,
            split=split,
            samples=samples,
            processes=processes or one_per_core(),
            limit=limit,
            version=version,
            progress=show,
            say=say,
        )
    if json:
        print_json(result)
    else:
        print_table(_rows(result, samples))


def _rows(result: dict[str, Any], samples: int) -> list[tuple[str, str]]:
    rows = [
        ("weights", f"version {count(result['version'])}"),
        ("rows", f"{count(result['examples'])} of {result['split']}"),
        ("ELBO", f"{nats(result['elbo'])} nats per example"),
        ("  log p(x|z)", nats(result["reconstruction"])),
        ("  KL", nats(result["kl"])),
        ("active units", f"{count(result['active_units'])} latent dimensions"),
    ]
    if "nll" in result:
        size = result["effective_sample_size"]
        rows += [
            ("-log p(x)", f"{nats(result['nll'])} ± {nats(result['nll_se'])} (standard error)"),
            ("effective samples", f"{size:,.1f} of {count(samples)}"),
        ]
    return rows
