"""Sockets around a follower: one connection to the coordinator's server, one to its leader's."""

import time
from collections.abc import Callable
from typing import Any

import zmq

from ps_vae.errors import PeerError
from ps_vae.ps.addresses import on_host
from ps_vae.ps.connection import Connection
from ps_vae.ps.follower import Follower
from ps_vae.ps.messages import Copy, Error, Lead, Replicate, Stop, Who
from ps_vae.ps.outbox import COORDINATOR, Output, Refused, RunEnded, Send
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.ps.shard import Shard

__all__ = ["stand_by"]

_TICK_SECONDS = 0.05

# Of the coordinator: this server follows nobody any more, it thinks, or the run is another one.
_LET_GO = ("bad-shard", "wrong-run")
# Of a server that has no shard, or another one.
_NOBODY = ("not-here", "starting")


def stand_by(
    follower: Follower,
    link: Connection,
    leader: str,
    *,
    keys: ClientKeys | None,
    notify: Callable[[Refused], None],
    patience: float,
    on_tick: Callable[[], bool],
) -> Shard | RunEnded | None:
    """Follow until it is told to lead: the shard to lead with; or the run's end; or None where it has to join again.

    link      to the coordinator's server
    leader    address of the leader, as the coordinator told it; empty: the coordinator's
    keys      that the leader wants to see
    patience  seconds without a coordinator after which the run counts as ended
    on_tick   called about twenty times a second; True: stop here
    """
    address = on_host(leader, link.address) if leader else link.address
    loop = _Loop(follower, link, Connection(address, keys=keys), notify)
    try:
        while follower.state != "leading":
            ended = loop.turn()
            if ended is not None:
                return ended
            if loop.is_let_go:
                return None
            if on_tick():
                return RunEnded(False, "stopped; the shard goes on without this follower")
            if link.seconds_down > patience:
                return RunEnded(True, f"the coordinator at {link.address} is gone for {link.seconds_down:.0f} s")
        if follower.shard is None:
            raise RuntimeError("a follower that leads has a shard")
        return follower.shard
    finally:
        loop.close()


class _Loop:
    def __init__(
        self, follower: Follower, link: Connection, leader: Connection, notify: Callable[[Refused], None]
    ) -> None:
        self.is_let_go = False
        self._follower = follower
        self._link = link
        self._leader = leader
        self._notify = notify
        self._poller = zmq.Poller()
        link.register(self._poller)
        self._leader.register(self._poller)

    def turn(self) -> RunEnded | None:
        """Wait for messages for a moment, and take them; the run's end, if that is among them."""
        ready = dict(self._poller.poll(round(1000 * _TICK_SECONDS)))
        for connection in (self._link, self._leader):
            connection.watch(ready)
            for message in connection.messages(ready):
                if isinstance(message, Stop) and connection is self._link:
                    return RunEnded(message.failed, message.reason)
                self._take(message, connection is self._link)
        self._send(self._follower.tick(time.monotonic()))
        return None

    def close(self) -> None:
        self._leader.close(0.0)

    def _take(self, message: Any, is_coordinators: bool) -> None:
        if isinstance(message, Error) and is_coordinators:
            self.is_let_go = self.is_let_go or message.code in _LET_GO
        elif isinstance(message, Error) and message.code in _NOBODY:
            # The leader is gone, and another server is where it was; the coordinator knows who leads.
            return
        elif isinstance(message, Error) and message.code != "not-following":
            self._notify(Refused("this follower", message.code, message.text))
        elif isinstance(message, Copy | Replicate | Lead | Who | Error):
            try:
                self._send(self._follower.handle(message, time.monotonic()))
            except PeerError as error:
                self._notify(Refused("the coordinator" if is_coordinators else "the leader", error.code, str(error)))

    def _send(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                (self._link if output.to == COORDINATOR else self._leader).send([output.message])
