"""`ps-vae train`: a whole run on this machine."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ps_vae.cli import progress
from ps_vae.cli.options import CLUSTER, OUTPUT, Debug, Json, Keep, Reproducible, Resume, RunDir, Shards
from ps_vae.cli.run_options import takes_run_options
from ps_vae.cli.terminal import count, megabytes, nats, print_json, print_table, say
from ps_vae.errors import PsVaeError

if TYPE_CHECKING:
    from ps_vae.train.local import LocalCluster
    from ps_vae.train.plan import Wishes
    from ps_vae.train.processes import StopSignal

__all__ = ["train"]

_POLL_SECONDS = 0.1

Workers = Annotated[
    int, typer.Option("--workers", metavar="N", min=1, rich_help_panel=CLUSTER, help="Worker processes, one core each.")
]
Listen = Annotated[
    str | None,
    typer.Option(
        "--listen", metavar="ADDRESS", rich_help_panel=CLUSTER, show_default="a private socket",
        help="Where the server listens, such as tcp://0.0.0.0:5555: other machines' workers may help.",
    ),
]
NoPictures = Annotated[bool, typer.Option("--no-pictures", rich_help_panel=OUTPUT, help="Draw no pictures at the end.")]


@takes_run_options
def train(
    wishes: "Wishes",
    workers: Workers = 2,
    shards: Shards = 1,
    listen: Listen = None,
    reproducible: Reproducible = False,
    run_dir: RunDir = None,
    resume: Resume = False,
    keep: Keep = 3,
    no_pictures: NoPictures = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model on this machine: server, workers, live progress, pictures.

    Ctrl-C stops the run cleanly, with a checkpoint; [bold]--resume[/bold] goes on from there.

    Example: [bold]ps-vae train --data mnist --epochs 20 --hidden 400 --latent 20[/bold]
    """
    from ps_vae.train.local import LocalCluster
    from ps_vae.train.processes import StopSignal
    from ps_vae.train.server import ServerOptions

    options = ServerOptions(
        listen=listen or "", shards=shards, run_dir=run_dir, resume=resume, reproducible=reproducible, keep=keep
    )
    should_stop = StopSignal().listen()
    with LocalCluster(wishes, options, workers, say=say) as cluster:
        _watch(cluster, should_stop)
        result = cluster.result()
    if not no_pictures and not result["failed"]:
        _draw(Path(result["run_dir"]))
    if json:
        print_json(result)
    else:
        _print_result(result)
    if result["failed"]:
        raise PsVaeError(result["reason"])


def _watch(cluster: "LocalCluster", should_stop: "StopSignal") -> None:
    """Show progress until the run has ended; pass on the wish to stop."""
    obeyed = 0
    with progress.training() as show:
        while not cluster.is_done:
            if should_stop.count > obeyed:
                obeyed = should_stop.count
                say("stopping: a checkpoint is written (once more: stop at once)" if obeyed == 1 else "stopping at once")
                cluster.stop()
            state = cluster.poll()
            if state is not None:
                show(state)
            time.sleep(_POLL_SECONDS)


def _draw(run_dir: Path) -> None:
    """The pictures of a run. They are an extra: without their library a line says how to get it."""
    try:
        from ps_vae.cli.run_pictures import draw_run
    except ModuleNotFoundError as error:
        say(f"no pictures: {error.name} is missing; pip install 'ps_vae[demo]'")
        return
    for path in draw_run(run_dir):
        say(f"picture {path}")


def _print_result(result: dict[str, Any]) -> None:
    examples = result["examples"]
    print_table(
        [
            ("run", str(result["run_dir"])),
            ("steps", f"{count(result['version'])} of {count(result['steps'])}"),
            ("examples", count(examples)),
            ("seconds", f"{result['seconds']:,.1f}"),
            ("examples/s", count(result["examples_per_second"])),
            ("pushed", _traffic(result["bytes_pushed"], examples)),
            ("pulled", _traffic(result["bytes_pulled"], examples)),
            ("training ELBO", f"{nats(result['elbo'])} nats per example"),
            ("validation ELBO", f"{nats(result['validation'].get('elbo'))} nats per example"),
            ("next", _next_command(result)),
        ]
    )


def _traffic(total: int, examples: int) -> str:
    return f"{megabytes(total)}, {count(total / examples)} bytes per example" if examples else megabytes(total)


def _next_command(result: dict[str, Any]) -> str:
    if result["version"] < result["steps"]:
        return f"ps-vae train --resume --run-dir {result['run_dir']}"
    return f"ps-vae evaluate {result['run_dir']}"
