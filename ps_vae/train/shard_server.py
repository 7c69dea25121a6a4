"""The program of a further server: it holds one shard of a run that it joins, or follows who does."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ps_vae.errors import PeerError, RefusedError, Unreachable
from ps_vae.jit import announce_compilation, start_numba
from ps_vae.lines import WARNING, Line
from ps_vae.ps.addresses import SAME_HOST, is_local, reachable_from, same_host, sibling
from ps_vae.ps.connection import Connection
from ps_vae.ps.endpoint import Endpoint
from ps_vae.ps.follower import Follower
from ps_vae.ps.identity import ServerIdentity
from ps_vae.ps.joining import join
from ps_vae.ps.messages import PROTOCOL, Admit, Join
from ps_vae.ps.outbox import Event, Refused, RunEnded
from ps_vae.ps.partition import Slice
from ps_vae.ps.server import Server
from ps_vae.ps.shard import Shard
from ps_vae.ps.sharing.segment import Segment
from ps_vae.ps.standby import stand_by
from ps_vae.ps.state import ShardState
from ps_vae.ps.transport import check_transport
from ps_vae.train.config import RunConfig
from ps_vae.train.event_lines import line_of
from ps_vae.train.key_folder import KeyFolder, check_open
from ps_vae.train.processes import StopSignal, allow_many_files
from ps_vae.train.repetitions import Repetitions
from ps_vae.train.shard import rules_of, shard_of
from ps_vae.train.warm_up import warm_up_shard

__all__ = ["Place", "serve_shard"]

# Of a shard's slice: the largest model this project is meant for, cut in one.
_FRAME_LIMIT = 1 << 33
# Without a first server, after which one that was told to stop does not wait for it.
_ALONE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a further server belongs.

    coordinator      address of the run's first server
    listen           address to bind; without one, any port of every interface, or what only this host reaches, where
                     that is so for the coordinator's address and there are no keys
    advertise        address that others are told; `*`: this server is on the coordinator's host
    follows          it follows the leader of a shard; else it holds a shard that nobody has
    connect_timeout  seconds to wait for a coordinator
    transport        how tensors travel between processes of this host: one of ps_vae.ps.transport.TRANSPORTS
    keys, insecure   as those of ServerOptions; a shard has the key of the first server
    """

    coordinator: str
    listen: str | None = None
    advertise: str | None = None
    follows: bool = False
    connect_timeout: float = 60.0
    transport: str = "auto"
    keys: Path | None = None
    insecure: bool = False


def serve_shard(place: Place, *, say: Callable[[str], None], should_stop: StopSignal) -> tuple[bool, str]:
    """Join the run and serve a shard of it; returns whether the run failed, and its last word.

    A leader whose place another has taken comes back as a follower; so does one that comes when every shard is taken.

    Raises Unreachable, RefusedError or PeerError where there is no run that wants it.
    """
    check_transport(place.transport)
    announce_compilation(say)
    start_numba()
    allow_many_files()
    bound = place.listen or _beside(place.coordinator, is_open=place.keys is not None)
    check_open(bound, place.keys, is_insecure=place.insecure)
    keys = None if place.keys is None else KeyFolder(place.keys).server_keys(say)
    follows = place.follows
    while True:
        endpoint = Endpoint(bound, _FRAME_LIMIT, keys)
        member = _Member(place, endpoint, say, should_stop)
        try:
            ended = member.follow() if follows else member.lead()
        except RefusedError as error:
            if error.code != "full" or follows:
                raise
            text = "{why}; joining again, as a follower"
            say(Line("no-shard-left", text, level=WARNING, why=str(error)))
            ended = None
        except BaseException as error:
            if isinstance(error, Unreachable) and should_stop():
                return False, str(error)
            raise
        finally:
            endpoint.close()
        if ended is not None:
            return ended.failed, ended.reason
        follows = True


class _Member:
    """A server from its joining until its end, or until it has to join again."""

    def __init__(self, place: Place, endpoint: Endpoint, say: Callable[[str], None], should_stop: StopSignal) -> None:
        self._place, self._endpoint = place, endpoint
        self._say, self._should_stop = say, should_stop
        self._identity = ServerIdentity(os.urandom(16), self._address())
        self._segment: Segment | None = None
        self._obeyed = 0
        self._repetitions = Repetitions()

    def lead(self) -> RunEnded | None:
        """Hold a shard that nobody has."""
        joined = self._join(follows=False)
        if isinstance(joined, RunEnded):
            return joined
        link, admit = joined
        self._say(_joined(admit, "as shard {shard}"))
        return self._serve(self._shard(admit, _admitted(admit)), link)

    def follow(self) -> RunEnded | None:
        """Follow a shard's leader, and lead when that is gone."""
        joined = self._join(follows=True)
        if isinstance(joined, RunEnded):
            return joined
        link, admit = joined
        self._say(_joined(admit, "as follower of shard {shard}"))
        size = admit.stop - admit.start
        warm_up_shard(RunConfig.unpack(admit.config))
        follower = Follower(
            admit.run,
            admit.shard,
            self._identity,
            admit.leader,
            admit.incarnation,
            size,
            lambda state: self._shard(admit, state),
            lambda: os.urandom(16),
        )
        found = stand_by(
            follower,
            link,
            admit.leader,
            notify=self._notice,
            keys=self._endpoint.shown,
            patience=self._place.connect_timeout,
            on_tick=self._should_stop,
        )
        if isinstance(found, Shard):
            text = "leading shard {shard} from version {version:,} on"
            self._say(Line("leading", text, shard=admit.shard + 1, version=found.version))
            return self._serve(found, link)
        link.close(0.0)
        if found is None:
            self._say(Line("let-go", "not needed as this follower any more; joining again"))
        return found

    def _join(self, *, follows: bool) -> tuple[Connection, Admit] | RunEnded:
        place, endpoint, address = self._place, self._endpoint, self._identity.address
        text = "listening on {listen}; joining {coordinator} as {address}"
        self._say(Line("listening", text, listen=endpoint.address, coordinator=place.coordinator, address=address))
        ask = Join(PROTOCOL, self._identity.session, address, follows)
        link, answer = join(
            place.coordinator,
            ask,
            timeout=place.connect_timeout,
            should_stop=self._should_stop,
            keys=endpoint.shown,
            tell=lambda why: self._say(Line("spare", "not needed yet: {why}", why=why)),
        )
        if isinstance(answer, RunEnded):
            link.close(0.0)
            return answer
        return link, answer

    def _address(self) -> str:
        """What others are told."""
        if self._place.advertise == SAME_HOST:
            return same_host(self._endpoint.address)
        return self._place.advertise or reachable_from(self._endpoint.address, self._place.coordinator)

    def _shard(self, admit: Admit, state: ShardState) -> Shard:
        config = RunConfig.unpack(admit.config)
        try:
            rules = rules_of(config, admit.run, admit.first, admit.secret)
        except ValueError as error:
            raise PeerError(
                "malformed", f"the coordinator admits this server to a run that cannot be: {error}"
            ) from None
        piece = Slice(admit.start, admit.stop)
        transport, identity = self._place.transport, self._identity
        shard, self._segment = shard_of(config, rules, admit.shard, piece, state, transport, identity)
        return shard

    def _serve(self, shard: Shard, link: Connection) -> RunEnded | None:
        server = Server(
            self._endpoint,
            shard,
            link=link,
            segment=self._segment,
            notify=self._notice,
            patience=self._place.connect_timeout,
        )
        try:
            ended = server.run(lambda: self._obey(server, link))
        finally:
            self._say_all(self._repetitions.rest(time.monotonic()))
            server.close()
        if not server.is_deposed:
            return ended
        self._say(Line("deposed", "{why}; joining again, as a follower", level=WARNING, why=ended.reason))
        return None

    def _obey(self, server: Server, link: Connection) -> None:
        self._say_all(self._repetitions.due(time.monotonic()))
        if self._should_stop.count > self._obeyed:
            self._obeyed = self._should_stop.count
            if self._obeyed == 1:
                text = "a shard ends with its run: stop the first server (once more: stop at once)"
                self._say(Line("not-stopping", text))
            else:
                server.dispatch([_GIVEN_UP])
        elif self._obeyed and link.seconds_down > _ALONE_SECONDS:
            server.dispatch([_LEFT_ALONE])

    def _notice(self, event: Event) -> None:
        line = line_of(event) if isinstance(event, Refused) else None
        if line is not None:
            self._say_all(self._repetitions.heard(line, time.monotonic()))

    def _say_all(self, lines: list[Line]) -> None:
        for line in lines:
            self._say(line)


_LEFT_ALONE = RunEnded(True, "stopped: the first server is gone, and this one was told to end with it")
_GIVEN_UP = RunEnded(True, "stopped at once: its part of the weights is gone with it, unless it is followed")


def _admitted(admit: Admit) -> ShardState:
    size = admit.stop - admit.start
    if len(admit.payload) != len(admit.names) + 1 or any(array.size != size for array in admit.payload):
        raise PeerError(
            "bad-size", f"the coordinator sent {[array.size for array in admit.payload]} numbers for {size}"
        )
    weights, *arrays = (array.copy() for array in admit.payload)
    warm_up_shard(RunConfig.unpack(admit.config))
    return ShardState(admit.version, weights, dict(zip(admit.names, arrays, strict=True)))


def _joined(admit: Admit, how: str) -> Line:
    text = f"joined run {{run}} {how}: parameters {{start:,}} to {{stop:,}}"
    return Line("joined", text, run=admit.run.hex(), shard=admit.shard + 1, start=admit.start, stop=admit.stop)


def _beside(coordinator: str, *, is_open: bool) -> str:
    is_closed = coordinator.startswith("ipc://") or (is_local(coordinator) and not is_open)
    return sibling(coordinator) if is_closed else "tcp://0.0.0.0:*"
