"""`ps-vae train`: a whole run on this machine."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ps_vae.cli import progress
from ps_vae.cli.key_options import Insecure, Keys, server_folder
from ps_vae.cli.options import (
    CLUSTER,
    OUTPUT,
    AwaitWorkers,
    BackupWorkers,
    Communication,
    Debug,
    Json,
    Keep,
    MetricsPort,
    Replicas,
    Reproducible,
    Resume,
    RunDir,
    Shards,
    Transport,
    with_default,
)
from ps_vae.cli.output import NO_PICTURES, can_draw
from ps_vae.cli.result import print_result
from ps_vae.cli.run_options import takes_run_options
from ps_vae.cli.terminal import print_json, say
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
        "--listen",
        metavar="ADDRESS",
        rich_help_panel=CLUSTER,
        show_default=False,
        help=with_default(
            "Where the server listens, such as tcp://0.0.0.0:5555: other machines' workers may help.",
            "a private socket",
        ),
    ),
]
NoPictures = Annotated[bool, typer.Option("--no-pictures", rich_help_panel=OUTPUT, help="Draw no pictures at the end.")]


@takes_run_options
def train(
    wishes: "Wishes",
    workers: Workers = 2,
    shards: Shards = 1,
    replicas: Replicas = 0,
    listen: Listen = None,
    keys: Keys = None,
    insecure: Insecure = False,
    transport: Transport = "auto",
    await_workers: AwaitWorkers = 1,
    backup_workers: BackupWorkers = 0,
    communication: Communication = "manual",
    reproducible: Reproducible = False,
    run_dir: RunDir = None,
    resume: Resume = False,
    keep: Keep = 3,
    no_pictures: NoPictures = False,
    metrics_port: MetricsPort = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model on this machine: server, workers, live progress, pictures.

    Ctrl-C stops the run cleanly, with a checkpoint; [bold]--resume[/bold] goes on from there.

    Example: [bold]ps-vae train --data mnist --epochs 20 --hidden 400 --latent 20[/bold]
    """
    from ps_vae.train.local import LocalCluster
    from ps_vae.train.processes import StopSignal
    from ps_vae.train.server_options import ServerOptions

    options = ServerOptions(
        listen=listen or "",
        shards=shards,
        run_dir=run_dir,
        resume=resume,
        reproducible=reproducible,
        keep=keep,
        transport=transport,
        await_workers=await_workers,
        communication=communication,
        metrics=metrics_port,
        replicas=replicas,
        keys=server_folder(keys, insecure, listen or "ipc://"),
        insecure=insecure,
        backup_workers=backup_workers,
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
        print_result(result)
    if result["failed"]:
        raise PsVaeError(result["reason"])


def _watch(cluster: "LocalCluster", should_stop: "StopSignal") -> None:
    """Show progress until the run has ended; pass on the wish to stop."""
    obeyed = 0
    with progress.training() as show:
        while not cluster.is_done:
            if should_stop.count > obeyed:
                obeyed += 1
                say("stopping at once" if obeyed > 1 else "stopping: a checkpoint is written (once more: stop at once)")
                cluster.stop()
            state = cluster.poll()
            if state is not None:
                show(state)
            time.sleep(_POLL_SECONDS)


def _draw(run_dir: Path) -> None:
    """The pictures of a run. They are an extra: where there are none, a line says why."""
    if not can_draw():
        say(f"no {NO_PICTURES}")
        return
    from ps_vae.cli.run_pictures import draw_run

    try:
        for path in draw_run(run_dir, say):
            say(f"drew {path}")
    except PsVaeError as error:
        say(f"no pictures: {error}")
