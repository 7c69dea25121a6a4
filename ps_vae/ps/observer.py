"""Asking a run how it is going, without being a member of it."""

import json
import time
from typing import Any

from ps_vae.errors import RefusedError
from ps_vae.ps.connection import Connection
from ps_vae.ps.messages import Error, State, Status
from ps_vae.ps.security.keys import ClientKeys

__all__ = ["Observer"]

_WAIT_SECONDS = 0.05
_ASK_AGAIN_SECONDS = 0.2


class Observer:
    """Asks the coordinator at `address` how it is going, again and again, over one connection."""

    def __init__(self, address: str, keys: ClientKeys | None = None) -> None:
        self._connection = Connection(address, keys=keys)

    def ask(self, timeout: float) -> dict[str, Any]:
        """The run's state.

        Raises Unreachable without an answer within `timeout` seconds, RefusedError where the server is none to ask, or
        the keys do not fit.
        """
        started = asked = time.monotonic()
        self._connection.send([Status()])
        while time.monotonic() - started < timeout:
            self._connection.wait(_WAIT_SECONDS)
            for message in self._connection.messages():
                if isinstance(message, State):
                    answer: dict[str, Any] = json.loads(message.json)
                    return answer
                if isinstance(message, Error):
                    raise RefusedError(message.code, f"{self._connection.address}: {message.text}")
            if time.monotonic() - asked > _ASK_AGAIN_SECONDS:
                asked = time.monotonic()
                self._connection.send([Status()])
        raise self._connection.absence(timeout)

    def close(self) -> None:
        self._connection.close(0.0)
