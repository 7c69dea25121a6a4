"""`ps-vae server`: the server of a run, or one more shard of it."""

from typing import TYPE_CHECKING, Annotated

import typer

from ps_vae.cli.key_options import Insecure, Keys, server_folder
from ps_vae.cli.options import (
    CLUSTER,
    AwaitWorkers,
    BackupWorkers,
    BeginOrResume,
    Communication,
    ConnectTimeout,
    Debug,
    Json,
    Keep,
    LogFormat,
    MetricsPort,
    Replicas,
    Reproducible,
    Resume,
    RunDir,
    Shards,
    Transport,
    with_default,
)
from ps_vae.cli.result import print_result
from ps_vae.cli.run_options import takes_run_options
from ps_vae.cli.terminal import print_json, speaker
from ps_vae.errors import NothingLeft, PsVaeError, UsageError
from ps_vae.lines import Line

if TYPE_CHECKING:
    from ps_vae.train.plan import Wishes

__all__ = ["server"]

_LISTEN = "tcp://127.0.0.1:5555"

Listen = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="ADDRESS",
        rich_help_panel=CLUSTER,
        show_default=False,
        help=with_default(
            "Where to listen: tcp://0.0.0.0:5555 on every interface, ipc:///tmp/run on this machine only.", _LISTEN
        ),
    ),
]
RemoteShards = Annotated[
    int,
    typer.Option(
        "--remote-shards",
        metavar="N",
        min=0,
        rich_help_panel=CLUSTER,
        help="Shards on other machines, started there with --join; training waits for them.",
    ),
]
Join = Annotated[
    str | None,
    typer.Option(
        "--join",
        metavar="ADDRESS",
        rich_help_panel=CLUSTER,
        show_default=False,
        help="Hold one shard of the run whose first server is there; the run's options are said there.",
    ),
]
Supervise = Annotated[
    bool,
    typer.Option(
        "--supervise",
        rich_help_panel=CLUSTER,
        help="Start the server again, from its newest checkpoint, when a signal has killed it.",
    ),
]
IsFollower = Annotated[
    bool,
    typer.Option(
        "--follower",
        rich_help_panel=CLUSTER,
        help="With --join: hold a copy of a shard that is held elsewhere, and take its place when that server is gone.",
    ),
]
Advertise = Annotated[
    str | None,
    typer.Option(
        "--advertise",
        metavar="ADDRESS",
        rich_help_panel=CLUSTER,
        show_default=False,
        help=with_default(
            "With --join: the address that workers are told, where it differs from --listen.", "as it listens"
        ),
    ),
]


@takes_run_options
def server(
    wishes: "Wishes",
    listen: Listen = None,
    shards: Shards = 1,
    remote_shards: RemoteShards = 0,
    join: Join = None,
    advertise: Advertise = None,
    follower: IsFollower = False,
    replicas: Replicas = 0,
    supervise: Supervise = False,
    keys: Keys = None,
    insecure: Insecure = False,
    connect_timeout: ConnectTimeout = 60.0,
    transport: Transport = "auto",
    await_workers: AwaitWorkers = 1,
    backup_workers: BackupWorkers = 0,
    communication: Communication = "manual",
    reproducible: Reproducible = False,
    run_dir: RunDir = None,
    resume: Resume = False,
    begin_or_resume: BeginOrResume = False,
    keep: Keep = 3,
    log_format: LogFormat = "text",
    metrics_port: MetricsPort = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve a run to workers on this and other machines.

    Example: [bold]bin/start-server --listen tcp://0.0.0.0:5555 --data mnist --epochs 20[/bold]
    """
    from ps_vae.train.processes import StopSignal

    say = speaker(log_format)
    should_stop = StopSignal().listen()
    if join is not None:
        if metrics_port is not None:
            raise UsageError(f"--metrics-port {metrics_port}: the first server shows what all shards do; leave it out")
        continues = resume or begin_or_resume
        of_a_run = (continues, run_dir is not None, remote_shards, shards != 1, replicas, backup_workers, supervise)
        if wishes.said() or any(of_a_run):
            raise UsageError(f"--join {join}: the run's options are said to its first server; leave them out here")
        from ps_vae.train.shard_server import Place, serve_shard

        place = Place(
            join,
            listen,
            advertise,
            follower,
            connect_timeout,
            transport,
            keys=server_folder(keys, insecure, join, *([] if listen is None else [listen])),
            insecure=insecure,
        )
        failed, reason = serve_shard(place, say=say, should_stop=should_stop)
        if failed:
            raise PsVaeError(reason)
        return
    if advertise is not None:
        raise UsageError(
            f"--advertise {advertise} goes with --join; the first server is known by the address workers use"
        )
    if follower:
        raise UsageError("--follower goes with --join: it follows a shard of the run there")
    from ps_vae.train.continuation import begun_or_resumed, ended_before, run_dir_of
    from ps_vae.train.server import serve
    from ps_vae.train.server_options import ServerOptions

    options = ServerOptions(
        listen or _LISTEN,
        shards,
        remote_shards,
        run_dir,
        resume,
        reproducible,
        keep,
        transport,
        await_workers,
        communication,
        log_format,
        metrics_port,
        replicas,
        keys=server_folder(keys, insecure, listen or _LISTEN),
        insecure=insecure,
        backup_workers=backup_workers,
    )
    if begin_or_resume:
        run_dir_of(options)
    if supervise:
        from ps_vae.train.server_process import supervise_server

        more = ["--log-format", log_format, *(["--json"] if json else []), *(["--debug"] if debug else [])]
        more += ["--begin-or-resume"] if begin_or_resume else []
        raise typer.Exit(supervise_server(wishes, options, more=more, say=say, should_stop=should_stop))
    if begin_or_resume:
        wishes, options = begun_or_resumed(wishes, options)
    try:
        result = serve(wishes, options, say=say, should_stop=should_stop)
    except NothingLeft as error:
        if not begin_or_resume:
            raise
        say(Line("nothing-left", "nothing is left to do: {why}", why=str(error)))
        result = ended_before(run_dir_of(options))
    if json:
        print_json(result)
    elif "examples" in result:
        print_result(result)
    if result["failed"]:
        raise PsVaeError(result["reason"])
