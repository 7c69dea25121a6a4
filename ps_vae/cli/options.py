"""Options and arguments that several commands share, except those of a run (run_options.py)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "CLUSTER",
    "DATA",
    "MODEL",
    "OUTPUT",
    "TRAINING",
    "AwaitWorkers",
    "BackupWorkers",
    "BeginOrResume",
    "Communication",
    "ConnectTimeout",
    "Debug",
    "Invocation",
    "Json",
    "Keep",
    "LogFormat",
    "MetricsPort",
    "Processes",
    "Replicas",
    "Reproducible",
    "Resume",
    "Run",
    "RunDir",
    "Seed",
    "Server",
    "Shards",
    "SplitName",
    "Transport",
    "one_per_core",
    "with_default",
]

DATA, MODEL, TRAINING, CLUSTER, OUTPUT = "Data", "Model", "Training", "Cluster", "Output"


@dataclass(slots=True)
class Invocation:
    """One call of `ps-vae`; typer carries it to the options' callbacks."""

    debug: bool = False
    log_format: str = "text"


def with_default(text: str, default: str) -> str:
    """An option's help with its default in words, where typer cannot know it; it looks like typer's own."""
    return f"{text} [dim]\\[default: {default}][/dim]"


def one_per_core() -> int:
    """The cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0))


def _set_debug(context: typer.Context, value: bool) -> bool:
    if value and isinstance(context.obj, Invocation):
        context.obj.debug = True
    return value


def _set_log_format(context: typer.Context, value: str) -> str:
    from ps_vae.cli.terminal import check_log_format

    if isinstance(context.obj, Invocation):
        context.obj.log_format = check_log_format(value)
    return value


Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OUTPUT, callback=_set_debug),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object on standard output, and nothing else there.", rich_help_panel=OUTPUT
    ),
]
LogFormat = Annotated[
    str,
    typer.Option(
        "--log-format",
        metavar="text|json",
        rich_help_panel=OUTPUT,
        callback=_set_log_format,
        # Before the other options, whose errors are told in it.
        is_eager=True,
        help="What is said on standard error: text for people, or one JSON object a line.",
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="FOLDER",
        show_default=False,
        rich_help_panel=OUTPUT,
        help=with_default(
            "Where the run is kept; it must not exist, or be continued with --resume.", "runs/DATA-1, -2, …"
        ),
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        rich_help_panel=OUTPUT,
        help="Continue the run in --run-dir from its newest checkpoint, with any number of workers and shards.",
    ),
]
BeginOrResume = Annotated[
    bool,
    typer.Option(
        "--begin-or-resume",
        rich_help_panel=OUTPUT,
        help="Begin the run in --run-dir, or continue it where it has begun: the same words for every start, for units "
        "and scripts. Where the run is at its end that is told, with exit code 0.",
    ),
]
Keep = Annotated[
    int,
    typer.Option("--keep", metavar="N", min=1, rich_help_panel=OUTPUT, help="How many of the newest checkpoints stay."),
]
Reproducible = Annotated[
    bool,
    typer.Option(
        "--reproducible",
        rich_help_panel=CLUSTER,
        help="Refuse workers whose processor or libraries compute other bits.",
    ),
]
Shards = Annotated[
    int,
    typer.Option(
        "--shards",
        metavar="N",
        min=1,
        rich_help_panel=CLUSTER,
        help="Server processes on this machine; each holds one part of the weights.",
    ),
]
Replicas = Annotated[
    int,
    typer.Option(
        "--replicas",
        metavar="0|1",
        min=0,
        max=1,
        rich_help_panel=CLUSTER,
        help="1: each shard has a follower in another process, which takes its place when it is lost.",
    ),
]
ConnectTimeout = Annotated[
    float,
    typer.Option(
        "--connect-timeout",
        metavar="SECONDS",
        min=0.0,
        rich_help_panel=CLUSTER,
        help="How long to wait for a server that does not answer (yet).",
    ),
]
Server = Annotated[
    str,
    typer.Option("--server", metavar="ADDRESS", rich_help_panel=CLUSTER, help="Address of the run's first server."),
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        min=1,
        show_default=False,
        rich_help_panel=CLUSTER,
        help=with_default("How many processes work side by side on this machine.", "one per core"),
    ),
]
Transport = Annotated[
    str,
    typer.Option(
        "--transport",
        metavar="auto|shm|tcp",
        rich_help_panel=CLUSTER,
        help="How tensors travel: shm through memory that processes of one machine share, tcp through the socket, "
        "auto as each pair of processes can.",
    ),
]
AwaitWorkers = Annotated[
    int,
    typer.Option(
        "--await-workers",
        metavar="N",
        min=1,
        rich_help_panel=CLUSTER,
        help="Begin when so many workers are ready; others may come at any time.",
    ),
]
BackupWorkers = Annotated[
    int,
    typer.Option(
        "--backup-workers",
        metavar="N",
        min=0,
        rich_help_panel=CLUSTER,
        help="In bsp: give the work of up to N workers that take longer than expected to others too; the first counts.",
    ),
]
Communication = Annotated[
    str,
    typer.Option(
        "--communication",
        metavar="manual|auto",
        rich_help_panel=CLUSTER,
        help="auto: time the first steps, then choose codecs and local steps that keep the workers busy, and say why.",
    ),
]
MetricsPort = Annotated[
    str | None,
    typer.Option(
        "--metrics-port",
        metavar="[HOST:]PORT",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="Show Prometheus how the run goes, at http://127.0.0.1:PORT/metrics; anybody who reaches it may look.",
    ),
]
Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of the run, such as runs/mnist-5k-1.", show_default=False)
]
SplitName = Annotated[
    str,
    typer.Option("--split", metavar="NAME", rich_help_panel=DATA, help="Rows to use: train, validation or test."),
]
Version = Annotated[
    str,
    typer.Option(
        "--version",
        metavar="N",
        rich_help_panel=MODEL,
        help="Which checkpoint: its version, newest, or best (the highest validation ELBO).",
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", metavar="N", min=0, rich_help_panel=MODEL, help="Another seed draws other samples."),
]
