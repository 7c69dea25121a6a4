"""How a further server joins a run."""

import time
from collections.abc import Callable

from ps_vae.errors import RefusedError, Unreachable
from ps_vae.ps.connection import Connection
from ps_vae.ps.messages import Admit, Error, Join, Stop
from ps_vae.ps.security.keys import ClientKeys

__all__ = ["join"]

_TICK_SECONDS = 0.05
_JOIN_RETRY_SECONDS = 1.0


def join(
    coordinator: str,
    ask: Join,
    *,
    timeout: float,
    should_stop: Callable[[], bool],
    keys: ClientKeys | None = None,
) -> tuple[Connection, Admit]:
    """Offer this server to the run of `coordinator`; returns the connection to it when admitted.

    Raises Unreachable after `timeout` seconds without an answer, RefusedError where the run does not want it, or where
    the keys do not fit.
    """
    link = Connection(coordinator, keys=keys)
    try:
        return link, _ask_to_join(link, ask, timeout, should_stop)
    except BaseException:
        link.close(0.0)
        raise


def _ask_to_join(link: Connection, ask: Join, timeout: float, should_stop: Callable[[], bool]) -> Admit:
    started = asked = time.monotonic()
    link.send([ask])
    while not should_stop():
        link.wait(_TICK_SECONDS)
        for message in link.messages():
            if isinstance(message, Admit):
                return message
            if isinstance(message, Error) and message.code == "starting":
                # Somebody is there, who will want us.
                started = time.monotonic()
            elif isinstance(message, Error):
                raise RefusedError(message.code, f"{link.address} refused this server: {message.text}")
            if isinstance(message, Stop):
                raise RefusedError("ended", f"the run at {link.address} has ended: {message.reason}")
        now = time.monotonic()
        if now - started > timeout:
            raise link.absence(timeout)
        if now - asked > _JOIN_RETRY_SECONDS:
            asked = now
            link.send([ask])
    raise Unreachable("stopped before a run was joined")
