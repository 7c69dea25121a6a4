"""An evaluator's side of the dialogue: at each milestone it pulls one version from every shard. A state machine without sockets or clock."""

from collections.abc import Sequence
from dataclasses import dataclass

from ps_vae.errors import RefusedError
from ps_vae.ps.messages import PROTOCOL, Error, Hello, Message, Milestone, Pull, Report, Stop, Weights, Welcome
from ps_vae.ps.outbox import COORDINATOR, Send, ShardAddress
from ps_vae.ps.worker import RETRY_SECONDS, Joined, Stopped, Store

__all__ = ["Evaluator", "Measure"]


@dataclass(frozen=True, slots=True)
class Measure:
    """All weights of `version` are there: measure, then call `measured`."""

    version: int


Action = Send | Joined | Store | Measure | Stopped


class Evaluator:
    """One evaluator's session.

    Invariant: the vector holds slices of one version only when `Measure` is returned.
    """

    def __init__(self, session: bytes, name: str) -> None:
        self._hello = Hello(PROTOCOL, session, "evaluator", name, "")
        self._session = session
        self._welcome: Welcome | None = None
        self._target: int | None = None
        self._missing: set[int] = set()
        self._reported = 0
        self._sent_at = float("-inf")

    def start(self, now: float) -> list[Action]:
        """Say hello."""
        self._welcome, self._sent_at = None, now
        return [Send(COORDINATOR, self._hello)]

    def handle(self, link: int, message: Message, now: float) -> list[Action]:
        """Take a message that came over the connection to shard `link` (0: the coordinator's server)."""
        match message:
            case Welcome() if self._welcome is None:
                self._welcome = message
                return [Joined(message)]
            case Milestone() if self._welcome is not None:
                self._target = message.version
                self._missing = set(range(len(self._welcome.shards)))
                return self._pull(now)
            case Weights() if self._welcome is not None and message.version == self._target and link in self._missing:
                return self._take(link, message)
            case Stop():
                return [Stopped(message.failed, message.reason)]
            case Error():
                return self._refused(message, now)
        return []

    def measured(self, values: Sequence[tuple[str, float]], now: float) -> Send:
        """The figures of the version that was measured."""
        self._reported, self._target, self._sent_at = self._target or 0, None, now
        return Send(COORDINATOR, Report(self._session, self._reported, tuple(values)))

    def tick(self, now: float) -> list[Action]:
        """Repeat what was not answered, and say that we are there."""
        if now - self._sent_at < RETRY_SECONDS:
            return []
        if self._welcome is None:
            return self.start(now)
        pulls = self._pull(now) if self._target is not None else []
        return [*pulls, Send(COORDINATOR, Report(self._session, self._reported, ()))]

    def _pull(self, now: float) -> list[Action]:
        self._sent_at = now
        if self._welcome is None or self._target is None:
            return []
        pull = Pull(self._welcome.run, (self._target, self._target))
        return [Send(ShardAddress(shard), pull) for shard in sorted(self._missing)]

    def _take(self, link: int, weights: Weights) -> list[Action]:
        if self._welcome is None:
            return []
        _, start, stop = self._welcome.shards[link]
        if len(weights.payload) != 1 or weights.payload[0].size != stop - start:
            raise RefusedError("bad-size", f"shard {link + 1} sent a slice of another size")
        self._missing.discard(link)
        store = Store(start, weights.payload[0])
        return [store] if self._missing else [store, Measure(weights.version)]

    def _refused(self, error: Error, now: float) -> list[Action]:
        if error.code == "unknown-session":
            return self.start(now)
        if error.code == "gone":
            # Training has passed this milestone; the next one is announced.
            self._target = None
            return []
        if error.code == "starting":
            return []
        raise RefusedError(error.code, error.text)
