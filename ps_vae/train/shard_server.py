"""The program of a further server: it holds one shard of a run that it joins."""

from collections.abc import Callable

from ps_vae.errors import PeerError, Unreachable
from ps_vae.jit import announce_compilation, start_numba
from ps_vae.ps.addresses import SAME_HOST, reachable_from, same_host, sibling
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.consistency import Consistency
from ps_vae.ps.messages import Admit
from ps_vae.ps.outbox import Event, Refused, RunEnded
from ps_vae.ps.partition import Slice
from ps_vae.ps.rules import RunRules
from ps_vae.ps.server import Endpoint, Server, join
from ps_vae.ps.shard import Shard
from ps_vae.ps.sharing.segment import Segment
from ps_vae.ps.state import ShardState
from ps_vae.ps.transport import PUBLISHED, check_transport, open_segment
from ps_vae.train.config import RunConfig
from ps_vae.train.encoding import pull_codecs, push_codecs
from ps_vae.train.gradient import METRICS, is_finite
from ps_vae.train.processes import StopSignal, allow_many_files
from ps_vae.train.update import look_ahead_rule, shard_rule
from ps_vae.train.warm_up import warm_up_shard

__all__ = ["serve_shard"]

# Of a shard's slice: the largest model this project is meant for, cut in one.
_FRAME_LIMIT = 1 << 33


def serve_shard(
    coordinator: str,
    *,
    listen: str | None,
    advertise: str | None,
    connect_timeout: float,
    transport: str,
    say: Callable[[str], None],
    should_stop: StopSignal,
) -> tuple[bool, str]:
    """Join the run at `coordinator` and serve a shard of it; returns whether the run failed, and its last word.

    listen     address to bind; without one, any port of every interface, or an ipc socket beside the coordinator's
    advertise  address that others are told; `*`: this server is on the coordinator's host
    transport  how tensors travel between processes of this host: one of ps_vae.ps.transport.TRANSPORTS

    Raises Unreachable, RefusedError or PeerError where there is no run that wants it.
    """
    check_transport(transport)
    announce_compilation(say)
    start_numba()
    allow_many_files()
    endpoint = Endpoint(listen or _beside(coordinator), _FRAME_LIMIT)
    try:
        if advertise == SAME_HOST:
            address = same_host(endpoint.address)
        else:
            address = advertise or reachable_from(endpoint.address, coordinator)
        say(f"listening on {endpoint.address}; joining {coordinator} as {address}")
        link, admit = join(coordinator, address, timeout=connect_timeout, should_stop=should_stop)
        say(f"joined run {admit.run.hex()} as shard {admit.shard + 1}: parameters {admit.start:,} to {admit.stop:,}")
        segment = open_segment(PUBLISHED, admit.stop - admit.start, transport)
        server = Server(
            endpoint,
            _shard(admit, segment),
            link=link,
            segment=segment,
            notify=_watcher(say),
            patience=connect_timeout,
        )
    except BaseException as error:
        endpoint.close()
        if isinstance(error, Unreachable) and should_stop():
            return False, str(error)
        raise
    obeyed = 0

    def obey() -> None:
        nonlocal obeyed
        if should_stop.count > obeyed:
            obeyed = should_stop.count
            if obeyed == 1:
                say("a shard ends with its run: stop the first server (once more: stop at once, and the run fails)")
            else:
                server.dispatch([_GIVEN_UP])

    try:
        ended = server.run(obey)
    finally:
        server.close()
    return ended.failed, ended.reason


_GIVEN_UP = RunEnded(True, "stopped at once: its part of the weights is gone with it")


def _watcher(say: Callable[[str], None]) -> Callable[[Event], None]:
    def notice(event: Event) -> None:
        if isinstance(event, Refused):
            say(f"refused a message of {event.who}: {event.code}: {event.text}")

    return notice


def _shard(admit: Admit, segment: Segment | None) -> Shard:
    config = RunConfig.unpack(admit.config)
    size = admit.stop - admit.start
    if len(admit.payload) != len(admit.names) + 1 or any(array.size != size for array in admit.payload):
        raise PeerError(
            "bad-size", f"the coordinator sent {[array.size for array in admit.payload]} numbers for {size}"
        )
    rules = RunRules(
        admit.run, admit.microbatches, admit.steps, Consistency(admit.bound), admit.milestone, len(METRICS)
    )
    weights, *arrays = (array.copy() for array in admit.payload)
    state = ShardState(admit.version, weights, dict(zip(admit.names, arrays, strict=True)))
    warm_up_shard(config)
    published = Buffers(size, segment.slots_first() if segment is not None else None)
    own = [Slice(admit.start, admit.stop)]
    push, pull = next(iter(push_codecs(config, own)), None), next(iter(pull_codecs(config, own)), None)
    rule, ahead = shard_rule(config), look_ahead_rule(config)
    return Shard(admit.shard, rules, state, rule, published, is_finite, ahead, push, pull)


def _beside(coordinator: str) -> str:
    return sibling(coordinator) if coordinator.startswith("ipc://") else "tcp://0.0.0.0:*"
