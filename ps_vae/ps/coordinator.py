"""The coordinator: who is in the run, who computes what, when it is over. No sockets, no clock, no tensors.

phase      meaning                                      left by
starting   some shard is not there yet                  its first applied -> training; stop -> ended
training   steps are handed out                         stop -> stopping; the last step applied -> closing
stopping   the open steps are finished, none is opened  they are, or are given up -> closing
closing    the last snapshot is taken and written,      both are done -> ended
           evaluators report on it
ended      everybody was told to stop                   -

message    from       starting    training, stopping, closing                       ended
hello      client     `starting`  it is a member: `welcome`, also if it came        `stop`
                                  while shards were missing
ready      worker     -           its work is delivered; `work` as soon as there    `stop`
                                  is some and all awaited are ready; the same again
                                  where it was lost
trouble    worker     -           its work goes to another; where that can do no     nothing
                                  better the run ends
report     evaluator  -           figures; `milestone` again where it missed it     `stop`
bye        client     -           its work goes to another at once                  it is gone
join       server     `admit`     `admit`, also again; `full` where nobody is        `stop`
                                  needed, and a follower may ask again; none is
                                  taken (`starting`) while links are measured
applied    shard      it is up    steps are finished, the next may be handed out;   nothing
                                  work that was refused goes to another; who fails
                                  at what others can do is put out
standby    follower   -           it is there; `lead` where it has to               nothing
present    server     -           a follower that was there before                  nothing
snapshot   shard      -           a part of a checkpoint                            nothing
status     anybody    `state`     `state`                                           `state`

- : PeerError, the sender cannot be a member yet
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from ps_vae.errors import PeerError
from ps_vae.ps import standing
from ps_vae.ps.assignments import Assignments
from ps_vae.ps.backlog import Backlog
from ps_vae.ps.ending import Ending
from ps_vae.ps.fleet import Fleet
from ps_vae.ps.gathering import Found
from ps_vae.ps.members import Client, ShardMember
from ps_vae.ps.messages import (
    PROTOCOL,
    Applied,
    Bye,
    Error,
    Hello,
    Join,
    Message,
    Present,
    Ready,
    Report,
    Snapshot,
    Standby,
    State,
    Status,
    Stop,
    Trouble,
    Welcome,
)
from ps_vae.ps.milestones import Milestones
from ps_vae.ps.outbox import Member, Output, RunEnded, Send, Sender, StepApplied
from ps_vae.ps.partition import Slice
from ps_vae.ps.refusals import Refusals
from ps_vae.ps.roster import Roster
from ps_vae.ps.rules import RunRules
from ps_vae.ps.state import ShardState

__all__ = ["Coordinator"]

# `tick` is called far more often, unless the process does not run.
_STANDSTILL_SECONDS = 1.0
# Servers that are told of the end though they have nothing to do yet; more of them find out.
_NEWCOMERS = 64


class Coordinator:
    """Members and work of one run.

    Invariants: no work is handed out before every shard is up, nor after the run has ended;
                `lowest` (backlog) is the version that every shard has reached, and never decreases.

    initial       the whole vector and optimizer state, from which joining shards get their slices
    watch         whatever the program wants to add to `state`
    reproducible  refuse workers whose arithmetic differs from the first one's
    awaited       workers that have to be ready before the first step begins
    takes_shards  whether servers may join; they are told to wait where not
    backup_workers  whose work may be given to others too while they are slow
    refusals      of the server where it has no shard
    found         of a run that goes on: its servers; `initial` only says then what there is
    tickets       given out before
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
        awaited: int = 1,
        takes_shards: bool = True,
        backup_workers: int = 0,
        found: Found | None = None,
        tickets: int = 0,
    ) -> None:
        version = initial.version if found is None else found.lowest
        self.rules = rules
        self.ended: RunEnded | None = None
        self.refusals = Refusals()
        self.backlog = Backlog(rules, version, backup_workers, tickets)
        self._fleet = Fleet(rules, slices, address, config, initial, found)
        self._roster = Roster(is_reproducible=reproducible)
        self._assignments = Assignments(self.backlog, self._roster, awaited)
        # A run that goes on is mostly between two milestones, and the shards keep the older one.
        milestone = version if found is None else max(rules.consistency.first, rules.newest_milestone(version))
        self._milestones = Milestones(rules, self._roster, milestone)
        self._ending = Ending(self.backlog, self._fleet, self._roster)
        self._config = config
        self._watch = watch
        self._takes_shards = takes_shards
        self._speed = standing.Speed()
        self._early: dict[bytes, tuple[Sender, Hello]] = {} if found is None else found.early
        # Servers that have asked to join and have not said since that they have a shard, or follow.
        self._newcomers: dict[bytes, Sender] = {}
        self._looked_at: float | None = None

    @property
    def shards(self) -> list[ShardMember]:
        return self._fleet.shards

    @property
    def clients(self) -> dict[bytes, Client]:
        return self._roster.clients

    @property
    def is_started(self) -> bool:
        """Whether every shard is there."""
        return self._fleet.is_complete

    @property
    def phase(self) -> str:
        """Which row of the first table above the run is in."""
        if self.ended is not None:
            return "ended"
        if not self.is_started:
            return "starting"
        if self._ending.is_closing:
            return "closing"
        return "training" if self._ending.stopping is None else "stopping"

    def begin(self, now: float) -> list[Output]:
        """Of a run that goes on: let in who is waiting, tell who has to lead."""
        self._looked_at = now
        outputs = self._fleet.begin(now) + self._let_in(now)
        self._assignments.is_open = self.phase == "training"
        return outputs

    def handle(self, sender: Sender, message: Message, now: float) -> list[Output]:
        """Take one message. PeerError where it is refused; nothing has changed then."""
        match message:
            case Ready() | Report() if self.ended is not None:
                return [Send(sender, self._stop())]
            case Ready():
                return self._assignments.ready(sender, message, now) + self._where(sender, message.moves, now)
            case Applied():
                return self._applied(message, now)
            case Hello():
                return self._hello(sender, message, now)
            case Snapshot():
                return self._ending.add(message)
            case Status():
                return [Send(sender, State(standing.as_json(self.state(now))))]
            case Join():
                return self._join(sender, message, now)
            case Standby() if self.ended is not None:
                return [Send(sender, self._stop())]
            case Standby():
                outputs = self._fleet.standby(sender, message, now)
                self._newcomers.pop(message.session, None)
                return outputs
            case Present():
                return self._fleet.present(sender, message, now)
            case Trouble():
                outputs, failure = self._assignments.trouble(message, now)
                return outputs if failure is None else self.end(True, failure, now)
            case Report():
                outputs = self._milestones.report(sender, message, now) + self._where(sender, message.moves, now)
                return outputs + self._watch_the_end(now)
            case Bye():
                return self._assignments.leave(self._roster.find(message.session, None, now), "left", "", now)
        raise PeerError("unknown-message", f"the coordinator takes no message {message.KIND!r}")

    def tick(self, now: float) -> list[Output]:
        """Call at least every tenth of a second."""
        self._excuse_standstill(now)
        if self.ended is not None:
            return []
        outputs = self._assignments.watch(now)
        for session in self._fleet.followed_and_silent(now):
            outputs += self.lost_server(session, now)
        if (silence := self._fleet.silent(now)) is not None:
            return outputs + self.end(True, silence, now)
        return outputs + self._watch_the_end(now)

    def forget(self, sender: Sender, now: float) -> list[Output]:
        """The connection that `sender` names is gone."""
        self._early = {session: early for session, early in self._early.items() if early[0] != sender}
        self._newcomers = {session: server for session, server in self._newcomers.items() if server != sender}
        for client in list(self.clients.values()):
            if client.sender == sender:
                return self._assignments.leave(client, "lost", "its connection is closed", now)
        return []

    @property
    def lacks_follower(self) -> bool:
        """Whether a server that wants to follow would be admitted."""
        return self._fleet.lacks_follower and self.ended is None

    @property
    def can_be_taken_up(self) -> bool:
        """Whether the servers would have all of the run without this process."""
        return self._fleet.can_be_taken_up and self.ended is None

    @property
    def servers(self) -> dict[bytes, str]:
        """Addresses of servers in other processes, by session: whoever sees that one is gone says `lost_server`."""
        return self._fleet.servers if self.ended is None else {}

    def lost_server(self, session: bytes, now: float) -> list[Output]:
        """The server with this session is gone. Where another can take its place it does; else it may come back."""
        moves = self._fleet.moves
        outputs = self._fleet.lost(session, now)
        if self._fleet.moves == moves:
            return outputs
        outputs += [Send(client.sender, self._fleet.moved) for client in self.clients.values()]
        self.backlog.reissue_delivered()
        return outputs + self._assignments.hand_out(now)

    def stop(self, now: float) -> list[Output]:
        """Finish the steps that are open, take a snapshot, end. Calling it again changes nothing."""
        if self._ending.stopping is not None or self.ended is not None:
            return []
        if not self.is_started:
            return self.end(False, "stopped before every shard was there", now)
        return self._ending.stop(now) + self._watch_the_end(now)

    def end(self, failed: bool, reason: str, now: float) -> list[Output]:
        """Tell everybody to stop, once. What the caller wants written has to be written before."""
        if self.ended is not None:
            return []
        self.ended = RunEnded(failed, reason)
        self._assignments.is_open = False
        everybody = [client.sender for client in self.clients.values()]
        everybody += [sender for sender, _ in self._early.values()]
        everybody += [*self._fleet.followers, *self._newcomers.values()]
        return [*(Send(to, self._stop()) for to in everybody + self._fleet.others), self.ended]

    def finished_writing(self, version: int, now: float) -> list[Output]:
        """The snapshot of `version` is written; after the last one the run ends, once the evaluators have seen it."""
        self._ending.written = max(self._ending.written, version)
        return self._watch_the_end(now)

    def state(self, now: float) -> dict[str, Any]:
        """What `status` shows."""
        workers = self._roster.workers
        return {
            "run": self.rules.run.hex(),
            "version": self.backlog.lowest,
            "steps": self.rules.steps,
            "consistency": str(self.rules.consistency),
            "phase": self.phase,
            "steps_per_second": self._speed.per_second(now),
            "reissued_blocks": self.backlog.reissued,
            "backed_up_blocks": self.backlog.backed_up,
            "duplicates": sum(shard.duplicates for shard in self.shards),
            "refused": dict(sorted((Counter(self._fleet.refused) + Counter(dict(self.refusals.counts))).items())),
            "bytes_pushed": sum(shard.pushed for shard in self.shards),
            "bytes_pulled": sum(shard.pulled for shard in self.shards),
            "bytes_shared": sum(shard.shared for shard in self.shards),
            "bytes_dense": sum(shard.dense for shard in self.shards),
            "time": standing.of_time(workers),
            "worker_count": len(workers),
            "workers": standing.of_workers(workers, self.backlog, now),
            "evaluators": standing.of_evaluators(self._roster.evaluators),
            "shards": standing.of_fleet(self._fleet, now, self._speed.per_second(now)),
            **self._watch(),
        }

    def _excuse_standstill(self, now: float) -> None:
        """Where this process stood still, or its host did, nobody could be heard: that counts as nobody's silence."""
        seconds = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        if seconds > _STANDSTILL_SECONDS:
            for part in (self.backlog, self._fleet, self._roster, self._ending):
                part.excuse(seconds, now)

    def _hello(self, sender: Sender, hello: Hello, now: float) -> list[Output]:
        _same_protocol(hello.protocol)
        if self.ended is not None:
            return [Send(sender, self._stop())]
        if not self.is_started:
            self._early = {session: early for session, early in self._early.items() if early[0] != sender}
            self._early[hello.session] = (sender, hello)
            shards = ", ".join(self._fleet.missing)
            text = f"the run waits for shard {shards}; start it with start-server --join"
            return [Send(sender, Error("starting", text))]
        outputs = self._roster.check(hello)
        if (other := self._roster.replaced(sender, hello)) is not None:
            outputs += self._assignments.leave(other, "left", "its connection has another session now", now)
        client, is_new = self._roster.enter(sender, hello, now)
        if is_new:
            outputs.append(Member(client.name, "joined", client.role))
        else:
            self._assignments.restart(client)
        outputs.append(Send(sender, self._welcome(client)))
        if client.role == "evaluator":
            outputs.append(Send(sender, self._milestones.message))
        return outputs

    def _let_in(self, now: float) -> list[Output]:
        """Answer those who came before the run could start."""
        early, self._early = self._early, {}
        outputs: list[Output] = []
        for sender, hello in early.values():
            try:
                outputs += self._hello(sender, hello, now)
            except PeerError as error:
                outputs.append(Send(sender, Error(error.code, str(error)[:2048])))
        return outputs

    def _welcome(self, client: Client) -> Welcome:
        return Welcome(
            session=client.session,
            run=self.rules.run,
            config=self._config,
            shards=tuple((shard.told, shard.slice.start, shard.slice.stop) for shard in self.shards),
            microbatches=self.rules.microbatches,
            steps=self.rules.steps,
            bound=self.rules.consistency.bound,
            delay=self.rules.consistency.delay,
            first=self.rules.consistency.first,
            version=self.backlog.lowest,
            moves=self._fleet.moves,
        )

    def _where(self, sender: Sender, moves: int, now: float) -> list[Output]:
        """Tell a client that has missed it where the shards are. What it has just pushed went to where one was."""
        if moves >= self._fleet.moves:
            return []
        self.backlog.reissue_delivered()
        return [Send(sender, self._fleet.moved), *self._assignments.hand_out(now)]

    def _join(self, sender: Sender, join: Join, now: float) -> list[Output]:
        _same_protocol(join.protocol)
        if self.ended is not None:
            return [Send(sender, self._stop())]
        if not self._takes_shards:
            return [Send(sender, Error("starting", "the run has not begun yet; it takes shards then"))]
        admit = self._fleet.join(join, now)
        if len(self._newcomers) < _NEWCOMERS or join.session in self._newcomers:
            self._newcomers[join.session] = sender
        if admit is not None:
            return [Send(sender, admit)]
        text = f"each of the run's {len(self.shards)} shards has its follower; ask again, one may be lost"
        return [Send(sender, Error("full", text))]

    def _applied(self, applied: Applied, now: float) -> list[Output]:
        if len(applied.metrics) not in (0, self.rules.metrics):
            raise PeerError("bad-size", f"{len(applied.metrics)} metrics, this run has {self.rules.metrics}")
        before = self.shards[0].before
        outputs = self._fleet.applied(applied, now)
        self._newcomers.pop(applied.session, None)
        is_measured = len(applied.metrics) == self.rules.metrics
        if self.shards[0].before > before and self.shards[0].session is not None and is_measured:
            # What the first shard says in its own process.
            outputs.append(StepApplied(applied.before - 1, applied.before, 0, applied.metrics))
        if not self.is_started:
            return outputs
        outputs += self._let_in(now)
        lowest = self._fleet.lowest
        moved = lowest > self.backlog.lowest
        finished = [step for step in self.backlog.steps if self._fleet.have(step)]
        outputs += self._assignments.closed(self.backlog.advance(lowest, finished, now))
        if moved:
            self._speed.note(now, lowest)
            outputs += self._milestones.advance(lowest)
        self._assignments.is_open = self.phase in ("training", "stopping")
        more, failure = self._assignments.blamed(applied.shard, applied.blamed, now)
        if failure is not None:
            return outputs + self.end(True, failure, now)
        return outputs + more + self._assignments.hand_out(now)

    def _watch_the_end(self, now: float) -> list[Output]:
        if self.ended is not None or not self.is_started:
            return []
        self._excuse_standstill(now)
        outputs: list[Output] = []
        closing = self._ending.watch(now)
        self._assignments.is_open = not self._ending.is_closing
        for output in closing:
            outputs += self.end(output.failed, output.reason, now) if isinstance(output, RunEnded) else [output]
        return outputs

    def _stop(self) -> Stop:
        if self.ended is None:
            raise RuntimeError("the run has not ended")
        return Stop(self.ended.failed, self.ended.reason[:2048])


def _same_protocol(protocol: int) -> None:
    if protocol != PROTOCOL:
        text = f"you speak protocol {protocol}, this server speaks {PROTOCOL}; install the same ps_vae"
        raise PeerError("protocol", text)
