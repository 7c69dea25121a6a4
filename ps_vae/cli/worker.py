"""`ps-vae worker`: the workers of this machine."""

from typing import Annotated

import typer

from ps_vae.cli.options import (
    CLUSTER,
    DATA,
    ConnectTimeout,
    Debug,
    Processes,
    Server,
    Transport,
    one_per_core,
    with_default,
)
from ps_vae.cli.terminal import say
from ps_vae.errors import PsVaeError

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
AsChild = Annotated[bool, typer.Option("--as-child", hidden=True, rich_help_panel=CLUSTER)]


def worker(
    data: DataHere = None,
    server: Server = "tcp://127.0.0.1:5555",
    processes: Processes = None,
    connect_timeout: ConnectTimeout = 60.0,
    transport: Transport = "auto",
    as_child: AsChild = False,
    debug: Debug = False,
) -> None:
    """Work for the run of a server; it says what to compute.

    May be started before the server, and at any time while it trains.

    Example: [bold]bin/start-worker --server tcp://host:5555[/bold]
    """
    from ps_vae.train.processes import StopSignal

    should_stop = StopSignal().listen()
    if not as_child:
        # One worker, too, is a child: with the same environment as all others it computes the same bits.
        from ps_vae.ps.transport import check_transport
        from ps_vae.train.supervisor import supervise

        arguments = ["worker", "--server", server, "--connect-timeout", str(connect_timeout), "--as-child"]
        arguments += ["--transport", check_transport(transport)]
        arguments += ["--data", data] if data is not None else []
        arguments += ["--debug"] if debug else []
        code = supervise(arguments, processes or one_per_core(), say=say, should_stop=should_stop)
        raise typer.Exit(code)
    from ps_vae.train.worker import work_for

    outcome = work_for(
        server, connect_timeout=connect_timeout, data=data, transport=transport, say=say, should_stop=should_stop
    )
    if outcome.failed:
        raise PsVaeError(outcome.reason)
    say(f"the run has ended: {outcome.reason}")
