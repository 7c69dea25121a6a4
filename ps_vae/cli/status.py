"""`ps-vae status`: how a run is going."""

from typing import Annotated, Any

import typer

from ps_vae.cli.key_options import Insecure, Key, Keys, client_keys
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


# A follower says something every second.
_SILENT_SECONDS = 2.0


def status(
    address: Address,
    timeout: Timeout = 5.0,
    keys: Keys = None,
    key: Key = None,
    insecure: Insecure = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show how a run is going: steps, ELBO, speed, members and their leases, retries, refusals.

    Example: [bold]ps-vae status tcp://host:5555[/bold]
    """
    from ps_vae.ps.observer import Observer

    observer = Observer(address, client_keys(keys, key, insecure, address))
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
            ("members", _by_kind(state["changes"]) or "nobody yet"),
            ("retries", ", ".join(_retries(state))),
            ("refused", _by_kind(state["refused"]) or "nothing"),
        ]
    )
    workers = [
        ["worker", worker["name"], worker["state"], _work(worker), _lease(worker)] for worker in state["workers"]
    ]
    evaluators = [
        ["evaluator", evaluator["name"], "", f"version {count(evaluator['version'])}", ""]
        for evaluator in state["evaluators"]
    ]
    shards = [
        [
            *("shard", shard["address"], "up" if shard["up"] else "not here", f"version {count(shard['version'])}"),
            _follower(shard),
        ]
        for shard in state["shards"]
    ]
    print_columns([*workers, *evaluators, *shards])


def _work(worker: dict[str, Any]) -> str:
    pace = f"{worker['microbatches_per_second'] or 0:,.1f} microbatches/s"
    return f"{pace}, {count(worker['refused'])} refused" if worker["refused"] else pace


def _lease(worker: dict[str, Any]) -> str:
    """Which part of which step it has, and for how long."""
    if worker["step"] is None:
        return ""
    words = f"{worker['microbatches']} of step {count(worker['step'])}"
    return words if worker["lease_seconds"] is None else f"{words}, {worker['lease_seconds']:.1f} s left"


def _follower(shard: dict[str, Any]) -> str:
    """Whether another server can take its place, and what that lacks if not."""
    if shard["follower"] == "none":
        return ""
    words = [f"follower {shard['follower']}"]
    if shard["lag"]:
        seconds = "" if shard["lag_seconds"] is None else f" ({shard['lag_seconds']:.1f} s)"
        words.append(f"{count(shard['lag'])} behind{seconds}")
    if shard["follower_silent_seconds"] > _SILENT_SECONDS:
        words.append(f"silent for {shard['follower_silent_seconds']:.1f} s")
    return ", ".join(words)


def _by_kind(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in counts.items())


def _retries(state: dict[str, Any]) -> list[str]:
    again, backed, pushes = state["reissued_blocks"], state["backed_up_blocks"], state["duplicates"]
    return [
        f"{again:,} {'block' if again == 1 else 'blocks'} given out again",
        *([f"{backed:,} backed up"] if backed else []),
        f"{pushes:,} {'push' if pushes == 1 else 'pushes'} counted already",
    ]
