"""A whole run in one process: one server and one worker, whose messages go from hand to hand.

The state machines are those that run between processes; only the sockets are missing. What a message carries is copied
when it is handed over, so that neither side writes into what the other still reads.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ps_vae.errors import PeerError
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.messages import Error, Push, Weights
from ps_vae.ps.outbox import COORDINATOR, Event, Output, Refused, Send, Sender, ShardAddress
from ps_vae.ps.shard import Shard
from ps_vae.ps.sharing.segment import Segment

__all__ = ["InProcess"]

_CLIENT = "the worker here"


class InProcess:
    """The server's side, and in the place of the worker's links (see `ps_vae.ps.links.Links`).

    notify  called with every event
    """

    def __init__(self, coordinator: Coordinator, shard: Shard, notify: Callable[[Event], None]) -> None:
        self._coordinator, self._shard, self._notify = coordinator, shard, notify
        self._inbox: deque[tuple[int | None, Any]] = deque()
        self.dispatch(shard.tick(time.monotonic()))

    def dispatch(self, outputs: list[Output]) -> None:
        """Deliver what a machine returned, and what that leads to."""
        waiting = deque(outputs)
        while waiting:
            output = waiting.popleft()
            if not isinstance(output, Send):
                self._notify(output)
            elif output.to == COORDINATOR:
                waiting.extend(self._handled(self._coordinator, COORDINATOR, output.message))
            elif isinstance(output.to, ShardAddress):
                waiting.extend(self._handled(self._shard, COORDINATOR, output.message))
            else:
                shard = self._shard.number if isinstance(output.message, Weights) else None
                self._inbox.append((shard, _copy(output.message)))

    def wait(self) -> None:
        """Nothing comes but what is here already; time passes for the server."""
        now = time.monotonic()
        self.dispatch(self._shard.tick(now) + self._coordinator.tick(now))

    def messages(self) -> list[tuple[int | None, Any]]:
        """What has come for the worker, with the number of the shard that it is from; None: from the coordinator."""
        found = list(self._inbox)
        self._inbox.clear()
        return found

    def send(self, sends: Sequence[Send]) -> list[Callable[[], bool]]:
        """From the worker. Nobody reads what was sent any more when this returns."""
        for send in sends:
            machine = self._shard if isinstance(send.to, ShardAddress) else self._coordinator
            self.dispatch(self._handled(machine, _CLIENT, _copy(send.message)))
        return []

    def open_shards(self, addresses: Sequence[str]) -> None:
        """The shard is here."""

    def move_shards(self, addresses: Sequence[str]) -> None:
        """It stays here."""

    def share(self, segment: Segment | None, *, insists: bool) -> None:
        """There is nobody to share memory with."""

    def close(self) -> None:
        """Nothing is open."""

    def _handled(self, machine: Coordinator | Shard, sender: Sender, message: Any) -> list[Output]:
        try:
            return machine.handle(sender, message, time.monotonic())
        except PeerError as error:
            refused = Refused(str(sender), error.code, str(error))
            return [refused] if sender == COORDINATOR else [refused, Send(sender, Error(error.code, str(error)))]


def _copy(message: Any) -> Any:
    if not isinstance(message, Push | Weights):
        return message
    return dataclasses.replace(message, payload=tuple(tensor.copy() for tensor in message.payload))
