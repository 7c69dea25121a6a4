"""How a further server joins a run."""

import time
from collections.abc import Callable

from ps_vae.errors import RefusedError, Unreachable
from ps_vae.ps.connection import Connection
from ps_vae.ps.messages import Admit, Error, Join, Stop
from ps_vae.ps.outbox import RunEnded
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
    tell: Callable[[str], None] = lambda why: None,
) -> tuple[Connection, Admit | RunEnded]:
    """Offer this server to the run of `coordinator`; returns the connection to it when admitted.

    One that wants to follow waits until it is needed, or the run has ended.

    tell  told once why it waits

    Raises Unreachable after `timeout` seconds without an answer, RefusedError where the run does not want it, or where
    the keys do not fit.
    """
    link = Connection(coordinator, keys=keys)
    try:
        return link, _ask_to_join(link, ask, timeout, should_stop, tell)
    except BaseException:
        link.close(0.0)
        raise


def _ask_to_join(
    link: Connection, ask: Join, timeout: float, should_stop: Callable[[], bool], tell: Callable[[str], None]
) -> Admit | RunEnded:
    started = asked = time.monotonic()
    is_spare = False
    link.send([ask])
    while not should_stop():
        link.wait(_TICK_SECONDS)
        for message in link.messages():
            if isinstance(message, Admit):
                return message
            if isinstance(message, Error) and message.code == "starting":
                # Somebody is there, who will want us.
                started = time.monotonic()
            elif isinstance(message, Error) and message.code == "full" and ask.follows:
                started = time.monotonic()
                if not is_spare:
                    tell(message.text)
                is_spare = True
            elif isinstance(message, Error):
                raise RefusedError(message.code, f"{link.address} refused this server: {message.text}")
            if isinstance(message, Stop) and is_spare:
                return RunEnded(message.failed, message.reason)
            if isinstance(message, Stop):
                raise RefusedError("ended", f"the run at {link.address} has ended: {message.reason}")
        now = time.monotonic()
        if now - started > timeout:
            raise link.absence(timeout)
        if now - asked > _JOIN_RETRY_SECONDS:
            asked = now
            link.send([ask])
    raise Unreachable("stopped before a run was joined")
