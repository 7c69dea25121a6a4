"""An evaluator's side of the dialogue: at each milestone it pulls one version from every shard. No sockets, no clock.

    state       meaning                                   left by
    greeting    hello was sent                            welcome -> watching
    watching    waits for a milestone                     milestone -> fetching
    fetching    some shard's slice of the milestone is    the last slice -> measuring; a newer milestone -> fetching;
                missing; it was asked for                 gone (training has passed it) -> watching
    measuring   the program measures                      measured() -> watching
    stopped     the run is over                           -

Hello and pulls are repeated until they are answered, the last report for as long as the session lives: the coordinator
then knows that we are there, and tells us again of a milestone that we have not reported.
"""

import dataclasses
from collections.abc import Sequence

from ps_vae.errors import RefusedError
from ps_vae.ps.actions import RETRY_SECONDS, Action, Joined, Measure, ShardsMoved, Stopped, Store
from ps_vae.ps.messages import (
    PROTOCOL,
    Bye,
    Error,
    Hello,
    Message,
    Milestone,
    Moved,
    Pull,
    Report,
    Stop,
    Weights,
    Welcome,
)
from ps_vae.ps.outbox import COORDINATOR, Send, ShardAddress

__all__ = ["Evaluator", "Measure"]


class Evaluator:
    """One evaluator's session.

    Invariant: the vector holds slices of one version only when `Measure` is returned.
    """

    def __init__(self, session: bytes, name: str) -> None:
        self.state = "greeting"
        self._hello = Hello(PROTOCOL, session, "evaluator", name, "")
        self._session = session
        self._welcome: Welcome | None = None
        self._target = 0
        self._missing: set[int] = set()
        self._reported: int | None = None
        self._values: tuple[tuple[str, float], ...] = ()
        self._sent_at = float("-inf")

    @property
    def _moves(self) -> int:
        return 0 if self._welcome is None else self._welcome.moves

    def start(self, now: float) -> list[Action]:
        """Say hello."""
        self.state, self._sent_at = "greeting", now
        return [Send(COORDINATOR, self._hello)]

    def handle(self, shard: int | None, message: Message, now: float) -> list[Action]:
        """Take a message from `shard`, or from the coordinator (None). Not to be called while measuring.

        Raises RefusedError where the peer says that we are wrong and will stay so.
        """
        match message:
            case _ if self.state == "stopped":
                return []
            case Welcome() if self.state == "greeting":
                return self._enter(message)
            case Moved() if self._welcome is not None:
                return self._move(self._welcome, message)
            case Milestone() if self.state in ("watching", "fetching"):
                return self._go_to(message.version, now)
            case Weights() if self.state == "fetching" and message.version == self._target and shard in self._missing:
                return self._take(shard, message)
            case Stop():
                self.state = "stopped"
                return [Stopped(message.failed, message.reason)]
            case Error():
                return self._refused(message, now)
        return []

    def measured(self, values: Sequence[tuple[str, float]], now: float) -> list[Action]:
        """The figures of the version that was measured."""
        self.state, self._reported, self._values = "watching", self._target, tuple(values)
        return self._report(now)

    def leave(self) -> list[Action]:
        """Go, before the run is over."""
        self.state = "stopped"
        return [Send(COORDINATOR, Bye(self._session))]

    def tick(self, now: float) -> list[Action]:
        """Repeat what was not answered, and say that we are there."""
        if now - self._sent_at < RETRY_SECONDS or self.state == "stopped":
            return []
        if self.state == "greeting":
            return self.start(now)
        return [*self._pull(), *self._report(now)]

    def _enter(self, welcome: Welcome) -> list[Action]:
        before, self._welcome, self.state = self._welcome, welcome, "watching"
        if before is not None and before.run == welcome.run:
            # The coordinator had forgotten us; what was measured stays measured.
            return [ShardsMoved(tuple(address for address, _, _ in welcome.shards))]
        self._reported, self._values = None, ()
        return [Joined(welcome)]

    def _move(self, welcome: Welcome, moved: Moved) -> list[Action]:
        if moved.moves <= welcome.moves or len(moved.addresses) != len(welcome.shards):
            return []
        shards = tuple((to, start, stop) for to, (_, start, stop) in zip(moved.addresses, welcome.shards, strict=True))
        self._welcome = dataclasses.replace(welcome, shards=shards, moves=moved.moves)
        return [ShardsMoved(moved.addresses), *self._pull()]

    def _go_to(self, version: int, now: float) -> list[Action]:
        is_old = self._reported is not None and version <= self._reported
        is_known = self.state == "fetching" and version <= self._target
        if is_old or is_known or self._welcome is None:
            return []
        self.state, self._target, self._sent_at = "fetching", version, now
        self._missing = set(range(len(self._welcome.shards)))
        return self._pull()

    def _pull(self) -> list[Action]:
        if self.state != "fetching" or self._welcome is None:
            return []
        run, want = self._welcome.run, (self._target, self._target)
        return [Send(ShardAddress(shard), Pull(run, shard, want, True)) for shard in sorted(self._missing)]

    def _report(self, now: float) -> list[Action]:
        self._sent_at = now
        return [Send(COORDINATOR, Report(self._session, self._reported, self._values, self._moves))]

    def _take(self, shard: int, weights: Weights) -> list[Action]:
        if self._welcome is None:
            return []
        _, start, stop = self._welcome.shards[shard]
        if len(weights.payload) != 1 or weights.payload[0].size != stop - start:
            sizes = [vector.size for vector in weights.payload]
            raise RefusedError("bad-size", f"shard {shard + 1} sent {sizes} numbers, its slice has {stop - start}")
        self._missing.discard(shard)
        store = Store(start, weights.payload[0])
        if self._missing:
            return [store]
        self.state = "measuring"
        return [store, Measure(weights.version)]

    def _refused(self, error: Error, now: float) -> list[Action]:
        if error.code in ("starting", "not-here", "not-shared"):
            return []
        if error.code in ("unknown-session", "wrong-run"):
            return self.start(now) if self.state != "greeting" else []
        if error.code == "gone":
            self.state = "watching" if self.state == "fetching" else self.state
            return []
        raise RefusedError(error.code, error.text)
