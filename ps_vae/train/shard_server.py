"""The program of a further server: it holds one shard of a run that it joins."""

from collections.abc import Callable
from pathlib import Path

from ps_vae.errors import PeerError, Unreachable
from ps_vae.jit import announce_compilation, start_numba
from ps_vae.ps.addresses import SAME_HOST, is_local, reachable_from, same_host, sibling
from ps_vae.ps.messages import Admit
from ps_vae.ps.outbox import Event, Refused, RunEnded
from ps_vae.ps.partition import Slice
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.ps.server import Endpoint, Server, join
from ps_vae.ps.shard import Shard
from ps_vae.ps.sharing.segment import Segment
from ps_vae.ps.state import ShardState
from ps_vae.ps.transport import check_transport
from ps_vae.train.config import RunConfig
from ps_vae.train.key_folder import KeyFolder, check_open
from ps_vae.train.processes import StopSignal, allow_many_files
from ps_vae.train.shard import rules_of, shard_of
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
    keys: Path | None = None,
    insecure: bool = False,
    say: Callable[[str], None],
    should_stop: StopSignal,
) -> tuple[bool, str]:
    """Join the run at `coordinator` and serve a shard of it; returns whether the run failed, and its last word.

    listen     address to bind; without one, any port of every interface, or what only this host reaches, where that is
               so for the coordinator's address and there are no keys
    advertise  address that others are told; `*`: this server is on the coordinator's host
    transport  how tensors travel between processes of this host: one of ps_vae.ps.transport.TRANSPORTS
    keys, insecure  as those of ServerOptions; a shard has the key of the first server

    Raises Unreachable, RefusedError or PeerError where there is no run that wants it.
    """
    check_transport(transport)
    announce_compilation(say)
    start_numba()
    allow_many_files()
    bound = listen or _beside(coordinator, is_open=keys is not None)
    check_open(bound, keys, is_insecure=insecure)
    own = None if keys is None else KeyFolder(keys).server_keys(say)
    shown = None if own is None else ClientKeys(own.own, own.own.public)
    endpoint = Endpoint(bound, _FRAME_LIMIT, own)
    try:
        if advertise == SAME_HOST:
            address = same_host(endpoint.address)
        else:
            address = advertise or reachable_from(endpoint.address, coordinator)
        say(f"listening on {endpoint.address}; joining {coordinator} as {address}")
        link, admit = join(coordinator, address, timeout=connect_timeout, should_stop=should_stop, keys=shown)
        say(f"joined run {admit.run.hex()} as shard {admit.shard + 1}: parameters {admit.start:,} to {admit.stop:,}")
        shard, segment = _shard(admit, transport)
        server = Server(
            endpoint,
            shard,
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


def _shard(admit: Admit, transport: str) -> tuple[Shard, Segment | None]:
    config = RunConfig.unpack(admit.config)
    size = admit.stop - admit.start
    if len(admit.payload) != len(admit.names) + 1 or any(array.size != size for array in admit.payload):
        raise PeerError(
            "bad-size", f"the coordinator sent {[array.size for array in admit.payload]} numbers for {size}"
        )
    weights, *arrays = (array.copy() for array in admit.payload)
    state = ShardState(admit.version, weights, dict(zip(admit.names, arrays, strict=True)))
    warm_up_shard(config)
    rules = rules_of(config, admit.run, admit.version)
    return shard_of(config, rules, admit.shard, Slice(admit.start, admit.stop), state, transport)


def _beside(coordinator: str, *, is_open: bool) -> str:
    is_closed = coordinator.startswith("ipc://") or (is_local(coordinator) and not is_open)
    return sibling(coordinator) if is_closed else "tcp://0.0.0.0:*"
