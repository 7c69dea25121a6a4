"""`ps-vae worker`: the workers of this machine."""

import socket
from typing import Annotated

import typer

from ps_vae.cli.key_options import Insecure, Key, Keys, client_keys, key_words
from ps_vae.cli.options import (
    CLUSTER,
    DATA,
    ConnectTimeout,
    Debug,
    LogFormat,
    Processes,
    Server,
    Transport,
    one_per_core,
    with_default,
)
from ps_vae.cli.terminal import speaker
from ps_vae.errors import PsVaeError
from ps_vae.lines import Line

__all__ = ["DataHere", "worker"]

DataHere = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="PATH",
        rich_help_panel=DATA,
        show_default=False,
        help=with_default("Where the run's data lie on this machine.", "as the server says"),
    ),
]
AsOne = Annotated[
    bool,
    typer.Option(
        "--as-one",
        rich_help_panel=CLUSTER,
        help="Be one worker to the servers: the processes sum up their gradients in shared memory, and one push and "
        "one pull a step leave the machine, however many they are.",
    ),
]
AsChild = Annotated[bool, typer.Option("--as-child", hidden=True, rich_help_panel=CLUSTER)]
AsMember = Annotated[int | None, typer.Option("--as-member", hidden=True, rich_help_panel=CLUSTER)]


def worker(
    data: DataHere = None,
    server: Server = "tcp://127.0.0.1:5555",
    processes: Processes = None,
    as_one: AsOne = False,
    keys: Keys = None,
    key: Key = None,
    insecure: Insecure = False,
    connect_timeout: ConnectTimeout = 60.0,
    transport: Transport = "auto",
    as_child: AsChild = False,
    as_member: AsMember = None,
    log_format: LogFormat = "text",
    debug: Debug = False,
) -> None:
    """Work for the run of a server; it says what to compute.

    May be started before the server, and at any time while it trains.

    Example: [bold]bin/start-worker --server tcp://host:5555[/bold]
    """
    from ps_vae.train.processes import StopSignal, die_of_signals, prepare_environment

    say = speaker(log_format)
    # Of the processes that are started here.
    logged = ["--log-format", log_format, *(["--debug"] if debug else [])]
    if as_member is not None:
        die_of_signals()
        from ps_vae.train.node.member import compute_for

        with socket.socket(fileno=as_member) as stream:
            raise typer.Exit(compute_for(stream, say))
    should_stop = StopSignal().listen()
    shown = client_keys(keys, key, insecure, server)
    if not (as_child or as_one):
        # One worker, too, is a child: with the same environment as all others it computes the same bits.
        from ps_vae.ps.transport import check_transport
        from ps_vae.train.supervisor import supervise

        arguments = ["worker", "--server", server, "--connect-timeout", str(connect_timeout), "--as-child"]
        arguments += ["--transport", check_transport(transport), *key_words(keys, key, insecure)]
        arguments += ["--data", data] if data is not None else []
        arguments += logged
        code = supervise(arguments, processes or one_per_core(), say=say, should_stop=should_stop)
        raise typer.Exit(code)
    if as_one:
        # Before NumPy is loaded: what our processes have, we have.
        prepare_environment()
        from ps_vae.train.node.as_one import work_as_one

        outcome = work_as_one(
            server,
            processes or one_per_core(),
            lambda descriptor: ["worker", "--as-member", str(descriptor), *logged],
            connect_timeout=connect_timeout,
            data=data,
            transport=transport,
            keys=shown,
            say=say,
            should_stop=should_stop,
        )
    else:
        from ps_vae.train.worker import work_for

        outcome = work_for(
            server,
            connect_timeout=connect_timeout,
            data=data,
            transport=transport,
            keys=shown,
            say=say,
            should_stop=should_stop,
        )
    if outcome.failed:
        raise PsVaeError(outcome.reason)
    say(Line("run-ended", "the run has ended: {reason}", failed=False, reason=outcome.reason))
