"""`ps-vae evaluator`: measures a run on its validation split while it trains. `train` starts one."""

from ps_vae.cli.key_options import Insecure, Key, Keys, client_keys
from ps_vae.cli.options import ConnectTimeout, Debug, Server, Transport
from ps_vae.cli.terminal import say
from ps_vae.cli.worker import DataHere
from ps_vae.errors import PsVaeError

__all__ = ["evaluator"]


def evaluator(
    data: DataHere = None,
    server: Server = "tcp://127.0.0.1:5555",
    keys: Keys = None,
    key: Key = None,
    insecure: Insecure = False,
    connect_timeout: ConnectTimeout = 60.0,
    transport: Transport = "auto",
    debug: Debug = False,
) -> None:
    """Measure the ELBO of a run's validation split at each checkpoint.

    Example: [bold]ps-vae evaluator --server tcp://host:5555[/bold]
    """
    from ps_vae.train.evaluator import evaluate_run
    from ps_vae.train.processes import StopSignal

    should_stop = StopSignal().listen()
    outcome = evaluate_run(
        server,
        connect_timeout=connect_timeout,
        data=data,
        transport=transport,
        keys=client_keys(keys, key, insecure, server),
        say=say,
        should_stop=should_stop,
    )
    if outcome.failed:
        raise PsVaeError(outcome.reason)
