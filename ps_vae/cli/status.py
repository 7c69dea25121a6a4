"""`ps-vae status`: how a run is going."""

from typing import Annotated, Any

import typer

from ps_vae.cli.options import CLUSTER, Debug, Json
from ps_vae.cli.progress import left, pace, quality
from ps_vae.cli.terminal import count, print_columns, print_json, print_table
from ps_vae.cli.traffic import fewer, spent

__all__ = ["status"]

Address = Annotated[
    str,
    typer.Argument(metavar="ADDRESS", help="Of the run's first server, such as tcp://host:5555.", show_default=False),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", metavar="SECONDS", min=0.0, rich_help_panel=CLUSTER, help="How long to wait for an answer."
    ),
]


def status(address: Address, timeout: Timeout = 5.0, json: Json = False, debug: Debug = False) -> None:
    """Show how a run is going: steps, ELBO, speed, workers, shards.

    Example: [bold]ps-vae status tcp://host:5555[/bold]
    """
    from ps_vae.ps.observer import Observer

    observer = Observer(address)
    try:
        state = observer.ask(timeout)
    finally:
        observer.close()
    if json:
        print_json(state)
        return
    _print_state(state)


def _print_state(state: dict[str, Any]) -> None:
    print_table(
        [
            ("run", f"{state['run_dir']}, {state['phase']}, {state['consistency']}"),
            ("steps", f"{count(state['version'])} of {count(state['steps'])}, {left(state)}"),
            ("model", ", ".join(quality(state)) or "no report yet"),
            ("pace", ", ".join(pace(state))),
            ("bytes", fewer(state) or "as many as dense"),
            ("time", spent(state) or "not known yet"),
            ("refused", ", ".join(f"{count(n)} {code}" for code, n in state["refused"].items()) or "nothing"),
        ]
    )
    workers = [["worker", worker["name"], worker["state"], _work(worker)] for worker in state["workers"]]
    shards = [
        ["shard", shard["address"], "up" if shard["up"] else "not here", f"version {count(shard['version'])}"]
        for shard in state["shards"]
    ]
    print_columns([*workers, *shards])


def _work(worker: dict[str, Any]) -> str:
    pace = f"{worker['microbatches_per_second'] or 0:,.1f} microbatches/s"
    return f"{pace}, {count(worker['refused'])} refused" if worker["refused"] else pace
