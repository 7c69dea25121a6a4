"""What must hold after every event, of the machine that the event happened to."""

from ps_vae.ps.backlog import Backlog
from ps_vae.ps.coordinator import Coordinator
from ps_vae.ps.shard import Shard

from .ledger import ViolationError


class Invariants:
    """Remembers what the machines had before."""

    def __init__(self, shards):
        self._seen = [(shard.version, {}) for shard in shards]
        self._lowest = 0
        self._shards = shards
        for shard in shards:
            shard.buffers.published = shard._slice.published.arrays
            self.check_shard(shard)

    def check_shard(self, shard: Shard) -> None:
        """Its version never goes back; what is published holds still."""
        version, published = self._seen[shard.number]
        if shard.version < version:
            raise ViolationError(f"shard {shard.number} went back from version {version} to {shard.version}")
        if any(step <= shard.before for step in shard.beyond):
            raise ViolationError(f"shard {shard.number} is at {shard.before}, with {sorted(shard.beyond)} beyond")
        turns, now = shard.buffers.turns, {}
        for key, array in shard._slice.published.arrays().items():
            place = key, turns.get(key)
            now[place] = text = array.tobytes()
            if published.get(place, text) != text:
                raise ViolationError(f"shard {shard.number} wrote to weights that are published")
        self._seen[shard.number] = shard.version, now

    def check_coordinator(self, coordinator: Coordinator) -> None:
        """Each microbatch of an open step is to be had once; it knows of no step that a shard does not have."""
        backlog = coordinator.backlog
        if backlog.lowest < self._lowest:
            raise ViolationError(f"the coordinator went back from version {self._lowest} to {backlog.lowest}")
        self._lowest = backlog.lowest
        if self._lowest > min(shard.before for shard in self._shards):
            raise ViolationError(f"the coordinator is at version {self._lowest}, before some shard")
        _check_work(backlog)
        for work in backlog.steps.values():
            for lease in (*work.leases.values(), *work.backups.values()):
                client = coordinator.clients.get(lease.session)
                if not lease.delivered and (client is None or client.lease != lease.ticket):
                    raise ViolationError(f"step {work.step}: nobody holds lease {lease.ticket} of {lease.session!r}")
        active = {client.session for client in coordinator.clients.values() if client.is_active}
        if active != {worker.session for worker in backlog.crew}:
            raise ViolationError(f"{active} are active, the backlog reckons with {[*backlog.crew]}")
        for client in coordinator.clients.values():
            if client.idle and client.lease is not None:
                raise ViolationError(f"{client.name} is idle and holds lease {client.lease}")


def _check_work(backlog: Backlog) -> None:
    for step, work in backlog.steps.items():
        if not backlog.lowest <= step < backlog.rules.steps:
            raise ViolationError(f"step {step} is open at version {backlog.lowest}")
        held = [*work.pool, *(block for lease in work.leases.values() for block in lease.blocks)]
        held.sort(key=lambda block: block.start)
        end = 0
        for block in held:
            if block.start != end:
                raise ViolationError(f"step {step}: {held} are not all, each once")
            end = block.stop
        if end != work.microbatches:
            raise ViolationError(f"step {step}: {held} are not all, each once")
        for backup in work.backups.values():
            backed = work.leases.get(backup.backs)
            if backed is None or backed.delivered or backed.blocks != backup.blocks:
                raise ViolationError(f"step {step}: {backup} does not do what {backed} does")
            if backed.session == backup.session:
                raise ViolationError(f"step {step}: {backup.session!r} backs itself")
