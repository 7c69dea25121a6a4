"""The coordinator: who is in the run, who computes what, when it is over. No sockets, no clock, no tensors.

    message    from       effect
    hello      client     it is a member; answered `welcome`, or `starting` while shards are missing
    ready      worker     its work is delivered; answered with `work` as soon as there is some, or with the same again where it was lost
    trouble    worker     its work goes to somebody else; the second trouble with a step ends the run
    bye        client     its work goes to somebody else at once
    join       server     it is a shard; answered `admit` with its slice
    applied    shard      steps are finished, the next may be handed out
    snapshot   shard      one part of a checkpoint
    report     evaluator  figures about a version
    status     anybody    answered `state`
"""

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from ps_vae.errors import PeerError
from ps_vae.ps.backlog import LEASE_SECONDS, Backlog
from ps_vae.ps.members import ROLES, Client, ShardMember
from ps_vae.ps.messages import (
    PROTOCOL,
    Admit,
    Applied,
    Bye,
    Error,
    Hello,
    Join,
    Message,
    Milestone,
    Ready,
    Report,
    Snapshot,
    State,
    Status,
    Stop,
    TakeSnapshot,
    Trouble,
    Welcome,
    Work,
)
from ps_vae.ps.outbox import (
    Member,
    MilestoneReached,
    Output,
    RunEnded,
    Send,
    Sender,
    ShardAddress,
    SnapshotTaken,
    Told,
)
from ps_vae.ps.partition import Slice
from ps_vae.ps.shard import RunRules, ShardState

__all__ = ["Coordinator"]

# An idle client repeats itself every second; after this it is taken for gone.
_SILENCE_SECONDS = 5.0
# A worker that lost its lease may still come back with the result.
_LATE_SECONDS = 60.0
_SHARD_SILENCE_SECONDS = 30.0
_EVALUATION_SECONDS = 120.0
# How long a stopping run waits for work in flight before it settles for the version it has.
_STOPPING_SECONDS = 10.0


class Coordinator:
    """Members and work of one run.

    Invariants: a client is known by its session, whatever connection it comes through;
                no work is handed out before every shard is up, nor after the run has ended;
                `lowest` (backlog) is the version that every shard has reached.

    initial  the whole vector and optimizer state, from which joining shards get their slices
    watch    whatever the program wants to add to `state`
    """

    def __init__(
        self,
        rules: RunRules,
        slices: list[Slice],
        address: str,
        config: bytes,
        initial: ShardState,
        watch: Callable[[], dict[str, Any]] = dict,
        reproducible: bool = False,
    ) -> None:
        self.rules = rules
        self.shards = [ShardMember(number, piece, before=initial.version) for number, piece in enumerate(slices)]
        self.shards[0].address = address
        self.clients: dict[bytes, Client] = {}
        self.backlog = Backlog(rules, initial.version)
        self.ended: RunEnded | None = None
        self.stopping: float | None = None
        self._config = config
        self._initial: ShardState | None = initial
        self._watch = watch
        self._reproducible = reproducible
        self._fingerprints: list[str] = []
        self._snapshots: dict[int, dict[int, Snapshot]] = {}
        self._milestone = initial.version
        self._troubles: dict[int, set[int]] = {}
        self._reported = -1
        self._is_last_taken = False
        self._asked_at = float("-inf")
        self._finishing: float | None = None
        self._progress: deque[tuple[float, int]] = deque(maxlen=64)

    def handle(self, sender: Sender, message: Message, now: float) -> list[Output]:
        """Take one message. PeerError where it is refused; nothing has changed then."""
        match message:
            case Ready():
                return self._ready(sender, message, now)
            case Applied():
                return self._applied(message, now)
            case Hello():
                return self._hello(sender, message, now)
            case Snapshot():
                return self._snapshot(message)
            case Status():
                return [Send(sender, State(json.dumps(self.state(now)).encode()))]
            case Join():
                return self._join(sender, message, now)
            case Trouble():
                return self._trouble(message, now)
            case Report():
                return self._report(message, now)
            case Bye():
                return self._leave(self._client(message.session), "left", "", now)
        raise PeerError("unknown-message", f"the coordinator takes no message {message.KIND!r}")

    def tick(self, now: float) -> list[Output]:
        """Call at least every tenth of a second."""
        if self.ended is not None:
            return []
        outputs: list[Output] = []
        for lease in self.backlog.overdue(now):
            worker = self.clients.get(lease.session)
            if worker is not None:
                self.backlog.lost(worker)
                why = f"no answer for {lease.seconds:.1f} s; its part of step {lease.step} goes to another"
                outputs.append(Member(worker.name, "late", why))
        self.backlog.reissue_undelivered(now)
        for client in list(self.clients.values()):
            if now - client.heard > (_SILENCE_SECONDS if client.idle else _LATE_SECONDS) and client.lease is None:
                outputs += self._leave(client, "lost", f"not heard of for {now - client.heard:.0f} s", now)
        outputs += self._hand_out(now)
        outputs += self._watch_shards(now)
        outputs += self._watch_the_end(now)
        return outputs

    def forget(self, sender: Sender, now: float) -> list[Output]:
        """The connection that `sender` names is gone."""
        for client in list(self.clients.values()):
            if client.sender == sender:
                return self._leave(client, "lost", "its connection is closed", now)
        return []

    def stop(self, now: float) -> list[Output]:
        """Finish the steps that are open, take a snapshot, end. Calling it again changes nothing."""
        if self.stopping is not None or self.ended is not None:
            return []
        self.stopping = now
        if not all(shard.is_up for shard in self.shards):
            return self.end(False, "stopped before every shard was there", now)
        return self._ask_for_snapshot(self.backlog.stop_opening())

    def end(self, failed: bool, reason: str, now: float) -> list[Output]:
        """Tell everybody to stop. What the caller wants written has to be written before."""
        self.ended = RunEnded(failed, reason)
        stop = Stop(failed, reason)
        everybody = [client.sender for client in self.clients.values()]
        others: list[Sender] = [ShardAddress(shard.number) for shard in self.shards[1:] if shard.session]
        return [*(Send(to, stop) for to in everybody + others), self.ended]

    def finished_writing(self, version: int, now: float) -> list[Output]:
        """The snapshot of `version` is safe; where it is the last one, the run ends once the evaluators have seen it."""
        if version == self.backlog.limit and self._finishing is None and self.ended is None:
            self._finishing = now
            return self._watch_the_end(now)
        return []

    @property
    def is_started(self) -> bool:
        """Whether every shard is there."""
        return all(shard.is_up for shard in self.shards)

    def state(self, now: float) -> dict[str, Any]:
        """What `status` shows."""
        return {
            "run": self.rules.run.hex(),
            "version": self.backlog.lowest,
            "steps": self.rules.steps,
            "consistency": str(self.rules.consistency),
            "phase": "stopping" if self.stopping is not None else "training" if self.is_started else "starting",
            "steps_per_second": self._speed(now),
            "reissued_blocks": self.backlog.reissued,
            "bytes_pushed": sum(shard.pushed for shard in self.shards),
            "bytes_pulled": sum(shard.pulled for shard in self.shards),
            "workers": [
                {
                    "name": client.name,
                    "microbatches_per_second": None if client.pace is None else round(1 / client.pace, 1),
                    "state": "idle" if client.idle else "working" if client.lease else "late or starting",
                }
                for client in self.clients.values()
                if client.role == "worker"
            ],
            "shards": [{"address": s.address, "up": s.is_up, "version": s.before + len(s.beyond)} for s in self.shards],
            **self._watch(),
        }

    def _hello(self, sender: Sender, hello: Hello, now: float) -> list[Output]:
        _same_protocol(hello.protocol)
        if hello.role not in ROLES:
            raise PeerError("bad-role", f"role {hello.role!r} is not one of {', '.join(ROLES)}")
        outputs = self._compare(hello)
        if self.ended is not None:
            return [Send(sender, Stop(self.ended.failed, self.ended.reason))]
        if not self.is_started:
            missing = [f"{shard.number + 1} of {len(self.shards)}" for shard in self.shards if not shard.is_up]
            text = f"the run waits for shard {', '.join(missing)}; start it with start-server --join"
            return [*outputs, Send(sender, Error("starting", text))]
        client = self.clients.get(hello.session)
        if client is None:
            client = self.clients[hello.session] = Client(hello.session, sender, hello.name, hello.role, now)
            outputs.append(Member(client.name, "joined", hello.role))
        elif client.lease is not None:
            # It starts from scratch: whatever it was doing is lost.
            self.backlog.lost(client)
        client.sender, client.heard = sender, now
        outputs.append(Send(sender, self._welcome(client)))
        if client.role == "evaluator" and self.rules.is_milestone(self.backlog.lowest):
            outputs.append(Send(sender, Milestone(self.backlog.lowest, self.backlog.lowest == self.rules.steps)))
        return outputs

    def _compare(self, hello: Hello) -> list[Output]:
        """Same arithmetic, same bits; what differs is said once."""
        if hello.role != "worker" or hello.fingerprint in self._fingerprints:
            return []
        if not self._fingerprints:
            self._fingerprints.append(hello.fingerprint)
            return []
        why = f"its arithmetic ({hello.fingerprint}) is not that of the first worker ({self._fingerprints[0]})"
        if self._reproducible:
            raise PeerError("fingerprint", f"{why}, and the run is --reproducible")
        self._fingerprints.append(hello.fingerprint)
        return [Member(hello.name, "differs", f"{why}: bits may differ")]

    def _welcome(self, client: Client) -> Welcome:
        return Welcome(
            session=client.session,
            run=self.rules.run,
            config=self._config,
            shards=tuple((shard.address, shard.slice.start, shard.slice.stop) for shard in self.shards),
            microbatches=self.rules.microbatches,
            steps=self.rules.steps,
            bound=self.rules.consistency.bound,
            version=self.backlog.lowest,
        )

    def _client(self, session: bytes) -> Client:
        client = self.clients.get(session)
        if client is None:
            raise PeerError("unknown-session", "this session is not known (any more); say hello")
        return client

    def _ready(self, sender: Sender, ready: Ready, now: float) -> list[Output]:
        worker = self._client(ready.session)
        worker.sender, worker.heard = sender, now
        if self.ended is not None:
            return [Send(sender, Stop(self.ended.failed, self.ended.reason))]
        if ready.ticket == worker.ticket and not worker.idle:
            if ready.nanoseconds:
                worker.measured(ready.nanoseconds / 1e9)
            self.backlog.delivered(worker, now)
            worker.idle = True
        elif worker.lease is not None and ready.ticket < worker.ticket:
            found = self.backlog.lease_of(worker)
            if found is not None:
                return [Send(sender, _work(found[1]))]
            worker.lease, worker.idle = None, True
        elif worker.lease is None:
            worker.idle = True
        return self._give(worker, now)

    def _give(self, worker: Client, now: float) -> list[Output]:
        if not worker.idle or not self.is_started or self.ended is not None:
            return []
        active = [client for client in self.clients.values() if client.role == "worker" and client.is_active]
        lease = self.backlog.next_work(worker, active, now)
        return [] if lease is None else [Send(worker.sender, _work(lease))]

    def _hand_out(self, now: float) -> list[Output]:
        outputs = [output for client in self.clients.values() for output in self._give(client, now)]
        for client in self.clients.values():
            if self.backlog.recall(client):
                outputs += self._give(client, now)
        return outputs

    def _trouble(self, trouble: Trouble, now: float) -> list[Output]:
        worker = self._client(trouble.session)
        worker.heard = now
        step = self.backlog.refused(trouble.ticket)
        if step is None:
            return []
        worker.lease, worker.idle = None, True
        seen = self._troubles.setdefault(step, set())
        seen.add(trouble.ticket)
        if len(seen) > 1:
            return self.end(True, f"{worker.name}: {trouble.text}", now)
        return [Member(worker.name, "in trouble", trouble.text), *self._hand_out(now)]

    def _leave(self, client: Client, change: str, why: str, now: float) -> list[Output]:
        self.backlog.lost(client)
        del self.clients[client.session]
        return [Member(client.name, change, why), *self._hand_out(now)]

    def _join(self, sender: Sender, join: Join, now: float) -> list[Output]:
        _same_protocol(join.protocol)
        free = [shard for shard in self.shards[1:] if shard.session in (None, join.session)]
        ours = [shard for shard in free if shard.session == join.session] or free
        if not ours or self._initial is None:
            raise PeerError("full", f"the run has its {len(self.shards)} shards")
        shard = ours[0]
        shard.session, shard.address = join.session, join.address
        state, piece = self._initial, slice(shard.slice.start, shard.slice.stop)
        admit = Admit(
            run=self.rules.run,
            config=self._config,
            shard=shard.number,
            start=shard.slice.start,
            stop=shard.slice.stop,
            microbatches=self.rules.microbatches,
            steps=self.rules.steps,
            bound=self.rules.consistency.bound,
            milestone=self.rules.milestone,
            version=state.version,
            names=tuple(state.optimizer),
            payload=(state.weights[piece], *(array[piece] for array in state.optimizer.values())),
        )
        return [Send(sender, admit)]

    def _applied(self, applied: Applied, now: float) -> list[Output]:
        if applied.shard >= len(self.shards):
            raise PeerError("bad-shard", f"there is no shard {applied.shard}")
        shard = self.shards[applied.shard]
        outputs: list[Output] = []
        if not shard.is_up:
            outputs.append(Member(f"shard {shard.number + 1} of {len(self.shards)}", "joined", shard.address))
        shard.heard = now
        shard.before = max(shard.before, applied.before)
        shard.beyond = frozenset(applied.beyond)
        shard.pushed, shard.pulled = applied.pushed, applied.pulled
        if not self.is_started:
            return outputs
        self._initial = None
        lowest = min(member.before for member in self.shards)
        beyond = frozenset.intersection(*(member.beyond | _below(member, lowest) for member in self.shards))
        moved = lowest > self.backlog.lowest
        self.backlog.advance(lowest, beyond, now)
        if moved:
            self._progress.append((now, lowest))
            outputs += self._milestones(lowest)
        return outputs + self._hand_out(now)

    def _milestones(self, lowest: int) -> list[Output]:
        if not self.rules.is_milestone(lowest) or lowest <= self._milestone:
            return []
        self._milestone = lowest
        message = Milestone(lowest, lowest == self.rules.steps)
        evaluators = [client for client in self.clients.values() if client.role == "evaluator"]
        return [MilestoneReached(lowest), *(Send(client.sender, message) for client in evaluators)]

    def _ask_for_snapshot(self, version: int) -> list[Output]:
        return [Send(ShardAddress(shard.number), TakeSnapshot(version)) for shard in self.shards]

    def _snapshot(self, snapshot: Snapshot) -> list[Output]:
        if snapshot.shard >= len(self.shards):
            raise PeerError("bad-shard", f"there is no shard {snapshot.shard}")
        sizes = {array.size for array in snapshot.payload}
        if sizes != {self.shards[snapshot.shard].slice.size} or len(snapshot.payload) != len(snapshot.names) + 1:
            raise PeerError("bad-size", f"a snapshot of arrays of {sizes}, shard {snapshot.shard} has another slice")
        parts = self._snapshots.setdefault(snapshot.version, {})
        parts[snapshot.shard] = snapshot
        if len(parts) < len(self.shards):
            return []
        for version in [version for version in self._snapshots if version <= snapshot.version]:
            del self._snapshots[version]
        self._is_last_taken = self._is_last_taken or snapshot.version == self.backlog.limit
        return [SnapshotTaken(snapshot.version, tuple(parts[shard.number] for shard in self.shards))]

    def _report(self, report: Report, now: float) -> list[Output]:
        client = self._client(report.session)
        client.heard = now
        self._reported = max(self._reported, report.version)
        values = [Told(report.version, report.values)] if report.values else []
        return [*values, *self._watch_the_end(now)]

    def _watch_shards(self, now: float) -> list[Output]:
        for shard in self.shards[1:]:
            if shard.heard is not None and now - shard.heard > _SHARD_SILENCE_SECONDS:
                reason = f"shard {shard.number + 1} at {shard.address} is silent for {_SHARD_SILENCE_SECONDS:.0f} s; resume from the newest checkpoint"
                return self.end(True, reason, now)
        return []

    def _watch_the_end(self, now: float) -> list[Output]:
        if self.ended is not None:
            return []
        if self._finishing is None and self.backlog.lowest >= self.backlog.limit and not self._is_last_taken:
            return self._ask_for_the_last_snapshot(now)
        if self._finishing is not None:
            watching = any(client.role == "evaluator" for client in self.clients.values())
            done = not watching or self.stopping is not None or self._reported >= self.backlog.limit
            if done or now - self._finishing > _EVALUATION_SECONDS:
                return self.end(False, "stopped" if self.stopping is not None else "done", now)
        elif self.stopping is not None and not self._is_last_taken:
            working = any(client.role == "worker" for client in self.clients.values())
            if now - self.stopping > (_STOPPING_SECONDS if working else LEASE_SECONDS):
                return self._settle_for_less(now)
        return []

    def _ask_for_the_last_snapshot(self, now: float) -> list[Output]:
        """Shards send it by themselves where it is a milestone; a part that does not come is asked for again."""
        if now - self._asked_at < LEASE_SECONDS:
            return []
        is_first, self._asked_at = self._asked_at == float("-inf"), now
        return [] if is_first else self._ask_for_snapshot(self.backlog.limit)

    def _settle_for_less(self, now: float) -> list[Output]:
        """Work in flight does not come: take the version that the shards agree on, if they do."""
        versions = {shard.before for shard in self.shards}
        if len(versions) > 1 or any(shard.beyond for shard in self.shards) or self.backlog.limit in versions:
            return self.end(True, "stopped without a last checkpoint: its workers are gone", now)
        self.backlog.limit = versions.pop()
        self.stopping = now
        return self._ask_for_snapshot(self.backlog.limit)

    def _speed(self, now: float) -> float:
        recent = [(time, version) for time, version in self._progress if now - time < 10.0]
        if len(recent) < 2 or recent[-1][0] == recent[0][0]:
            return 0.0
        return (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0])


def _same_protocol(protocol: int) -> None:
    if protocol != PROTOCOL:
        raise PeerError("protocol", f"you speak protocol {protocol}, this server speaks {PROTOCOL}; install the same ps_vae")


def _work(lease: Any) -> Work:
    return Work(lease.ticket, lease.step, tuple((block.start, block.stop) for block in lease.blocks))


def _below(member: ShardMember, lowest: int) -> frozenset[int]:
    """The steps from `lowest` on that are below the member's own first gap."""
    return frozenset(range(lowest, member.before))
