"""A worker's side of the dialogue: a state machine without sockets or clock.

    state      meaning                                        left by
    greeting   hello was sent                                 welcome -> warming; of the run that all is prepared for ->
                                                              idle
    warming    the program prepares model and data            prepared() -> idle
    idle       ready was sent, no work                        work -> fetching
    fetching   some shard's weights are not of a usable       the last missing weights -> computing
               version yet; they were asked for
    computing  the program computes                           computed() or failed() -> idle
    stopped    the run is over                                -

Whatever is lost on the way is asked for again by `tick`: hello, ready and pull are repeated until they are answered,
ready also while fetching.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ps_vae.errors import RefusedError
from ps_vae.ps.actions import (
    RETRY_SECONDS,
    Action,
    Compute,
    Joined,
    Result,
    ShardsMoved,
    Spent,
    Stopped,
    Store,
    StoreWords,
)
from ps_vae.ps.blocks import Block
from ps_vae.ps.consistency import Consistency, Versions
from ps_vae.ps.messages import (
    PROTOCOL,
    Bye,
    Error,
    Hello,
    Message,
    Moved,
    Pull,
    Push,
    Ready,
    Stop,
    Trouble,
    Weights,
    Welcome,
    Work,
)
from ps_vae.ps.outbox import COORDINATOR, Send, ShardAddress

__all__ = ["RETRY_SECONDS", "Action", "Compute", "Joined", "Result", "Stopped", "Store", "StoreWords", "Worker"]

Vector = npt.NDArray[np.float32]

# Answers to messages that were overtaken by others' work; nothing is wrong.
_OVERTAKEN = ("gone", "stale", "not-here", "not-shared")
# Answers of a server that was started again and does not know us.
_FORGOTTEN = ("unknown-session", "wrong-run")


class Worker:
    """One worker's session.

    Invariant: between `Compute` and the call that answers it, no `Store` is returned: the weights hold still.
    """

    def __init__(self, session: bytes, name: str, fingerprint: str) -> None:
        self.state = "greeting"
        self.waits_because = ""
        self._hello = Hello(PROTOCOL, session, "worker", name, fingerprint)
        self._session = session
        self._welcome: Welcome | None = None
        self._is_prepared = False
        self._consistency = Consistency(0)
        self._held: list[int | None] = []
        self._asked: list[list[Versions]] = []
        self._early: list[list[Weights]] = []
        self._ticket = 0
        self._spent = Spent()
        self._work: Work | None = None
        self._sent_at = float("-inf")

    def start(self, now: float) -> list[Action]:
        """Say hello."""
        self.state, self._sent_at = "greeting", now
        return [Send(COORDINATOR, self._hello)]

    def prepared(self, now: float) -> list[Action]:
        """Model, data and kernels are there."""
        if self.state != "warming":
            return []
        self.state, self._is_prepared = "idle", True
        return self._say_ready(now)

    def handle(self, shard: int | None, message: Message, now: float) -> list[Action]:
        """Take a message from `shard`, or from the coordinator (None). Not to be called while computing.

        Raises RefusedError where the peer says that we are wrong and will stay so.
        """
        match message:
            case _ if self.state == "stopped":
                return []
            case Weights() if shard is not None and self.state in ("idle", "fetching"):
                return self._take_weights(shard, message)
            case Work() if self.state in ("idle", "fetching"):
                return self._take_work(message, now)
            case Welcome() if self.state == "greeting":
                return self._enter(message, now)
            case Moved() if self._welcome is not None and self.state != "greeting":
                return self._move(message)
            case Stop():
                self.state = "stopped"
                return [Stopped(message.failed, message.reason)]
            case Error():
                return self._refused(shard, message, now)
        return []

    def computed(
        self, results: Sequence[Result], spent: Spent, now: float, parts: Sequence[Sequence[Vector]] | None = None
    ) -> list[Action]:
        """Push what was computed: to each shard its slice of each block, the last push asking for the next weights.

        spent  time on this work
        parts  of each result what goes to each shard, where that is not the slice itself
        """
        welcome, work = self._entered(), self._working()
        then = self._consistency.usable(work.step + self._consistency.next_wanted)
        permits = dict(zip(work.blocks, work.permits, strict=True)) if work.permits else {}
        actions: list[Action] = []
        for shard, (_, start, stop) in enumerate(welcome.shards):
            for number, result in enumerate(results):
                is_last = result is results[-1]
                push = Push(
                    run=welcome.run,
                    shard=shard,
                    session=self._session,
                    ticket=work.ticket,
                    step=work.step,
                    start=result.block.start,
                    stop=result.block.stop,
                    version=self._held[shard] or 0,
                    metrics=result.metrics,
                    then=(then.low, then.high) if is_last else None,
                    payload=(result.gradient[start:stop] if parts is None else parts[number][shard],),
                    permit=permits.get((result.block.start, result.block.stop)),
                )
                actions.append(Send(ShardAddress(shard), push))
            self._ask(shard, then)
        self._ticket, self._spent = work.ticket, spent
        self._work, self.state = None, "idle"
        # First the small message: it says what the answer to the push, which may take long, is to be joined by.
        return self._say_ready(now) + actions

    def failed(self, text: str, now: float) -> list[Action]:
        """The work cannot be done; say so and wait for other work."""
        work = self._working()
        self._work, self.state, self._sent_at = None, "idle", now
        return [Send(COORDINATOR, Trouble(self._session, work.ticket, text[:2048]))]

    def leave(self) -> list[Action]:
        """Go, before the run is over."""
        self.state = "stopped"
        return [Send(COORDINATOR, Bye(self._session))]

    def tick(self, now: float) -> list[Action]:
        """Repeat what was not answered. Call at least every tenth of a second while not computing."""
        if now - self._sent_at < RETRY_SECONDS:
            return []
        self._sent_at = now
        if self.state == "greeting":
            return [Send(COORDINATOR, self._hello)]
        if self.state == "idle":
            return self._say_ready(now)
        if self.state == "fetching":
            self._asked = [[] for _ in self._asked]
            # The weights may never come: our work may be somebody else's by now, and we may have missed the next.
            return [*self._say_ready(now), *self._fetch()]
        return []

    def _enter(self, welcome: Welcome, now: float) -> list[Action]:
        is_prepared = self._is_prepared and self._welcome is not None and self._welcome.run == welcome.run
        self._welcome = welcome
        self._asked = [[] for _ in welcome.shards]
        self._early = [[] for _ in welcome.shards]
        self._ticket, self._spent = 0, Spent()
        self._work = None
        if is_prepared:
            # The coordinator had forgotten us. Model, data, the weights that are here: all that is as it was.
            self.state = "idle"
            return [ShardsMoved(_addresses(welcome)), *self._say_ready(now)]
        self._consistency = Consistency(welcome.bound, welcome.delay, welcome.first)
        self._held = [None] * len(welcome.shards)
        self.state, self._is_prepared = "warming", False
        return [Joined(welcome)]

    def _move(self, moved: Moved) -> list[Action]:
        """What a shard that moved was asked for is asked again at its new address."""
        welcome = self._entered()
        if moved.moves <= welcome.moves or len(moved.addresses) != len(welcome.shards):
            return []
        changed = [at for at, shard in enumerate(welcome.shards) if shard[0] != moved.addresses[at]]
        shards = tuple((to, start, stop) for to, (_, start, stop) in zip(moved.addresses, welcome.shards, strict=True))
        self._welcome = dataclasses.replace(welcome, shards=shards, moves=moved.moves)
        for shard in changed:
            self._asked[shard], self._early[shard] = [], []
        actions: list[Action] = [ShardsMoved(moved.addresses)]
        return [*actions, *(self._fetch() if self.state == "fetching" else [])]

    def _say_ready(self, now: float) -> list[Action]:
        self._sent_at = now
        spent, moves = self._spent, self._entered().moves
        ready = Ready(self._session, self._ticket, spent.computing, spent.encoding, spent.waiting, moves)
        return [Send(COORDINATOR, ready)]

    def _take_work(self, work: Work, now: float) -> list[Action]:
        if work.ticket <= (self._work.ticket if self._work is not None else self._ticket):
            return []
        if work.permits and len(work.permits) != len(work.blocks):
            raise RefusedError("malformed", f"work of {len(work.blocks)} blocks came with {len(work.permits)} permits")
        self._work, self.state, self._sent_at = work, "fetching", now
        return self._fetch()

    def _fetch(self) -> list[Action]:
        """Ask for the weights that are missing; compute where none is."""
        work, welcome = self._working(), self._entered()
        usable = self._consistency.usable(work.step)
        actions: list[Action] = []
        is_waiting = False
        for shard in range(len(self._held)):
            actions += self._take_early(shard, usable)
            version = self._held[shard]
            if any(asked.overlaps(usable) and asked.low <= work.step for asked in self._asked[shard]):
                # Usable weights are on their way, perhaps newer ones than we hold, and do not wait for this very work.
                is_waiting = True
            elif version is None or version not in usable:
                is_waiting = True
                self._ask(shard, usable)
                pull = Pull(welcome.run, shard, (usable.low, usable.high), False)
                actions.append(Send(ShardAddress(shard), pull))
        if is_waiting:
            return actions
        self.state = "computing"
        return [*actions, Compute(work.step, tuple(Block(*block) for block in work.blocks))]

    def _take_weights(self, shard: int, weights: Weights) -> list[Action]:
        welcome = self._entered()
        _, start, stop = welcome.shards[shard]
        if not any(weights.version in asked for asked in self._asked[shard]):
            return []
        if len(weights.payload) != 1 or not (weights.encoded or weights.payload[0].size == stop - start):
            sizes = [vector.size for vector in weights.payload]
            raise RefusedError("bad-size", f"shard {shard + 1} sent {sizes} numbers, its slice has {stop - start}")
        self._asked[shard] = [asked for asked in self._asked[shard] if weights.version not in asked]
        actions: list[Action] = []
        if self._consistency.delay:
            # Perhaps for the work after the next one, which these weights must not replace.
            self._early[shard].append(weights)
        else:
            actions += self._store(shard, weights)
        return [*actions, *(self._fetch() if self.state == "fetching" else [])]

    def _take_early(self, shard: int, usable: Versions) -> list[Action]:
        """Of the weights that came, those that are usable now, and changes that lead there."""
        early, self._early[shard] = sorted(self._early[shard], key=lambda weights: weights.version), []
        actions: list[Action] = []
        for weights in early:
            if usable.high is not None and weights.version > usable.high:
                self._early[shard].append(weights)
            elif weights.version in usable or weights.base is not None:
                actions += self._store(shard, weights)
        return actions

    def _store(self, shard: int, weights: Weights) -> list[Action]:
        """Nothing where they are a change of weights that are not here: they will be asked for as they are."""
        held = self._held[shard]
        # Where pushes are applied on arrival, the weights of one version change with each.
        is_known = weights.version == held and self._consistency.is_synchronous
        if is_known or weights.base not in (None, held):
            return []
        self._held[shard] = weights.version
        if weights.encoded:
            return [StoreWords(shard, weights.payload[0], weights.base is not None)]
        return [Store(self._entered().shards[shard][1], weights.payload[0])]

    def _ask(self, shard: int, versions: Versions) -> None:
        """Note what was asked for. A shard answers the newest question, and with a delay the one before it too."""
        delay = self._consistency.delay
        before = [asked for asked in self._asked[shard] if asked != versions][-delay:] if delay else []
        self._asked[shard] = [*before, versions]

    def _refused(self, shard: int | None, error: Error, now: float) -> list[Action]:
        if error.code == "starting":
            self.waits_because = error.text
            return []
        if error.code in _FORGOTTEN:
            return self.start(now) if self.state not in ("greeting", "warming") else []
        if error.code == "gone" and self._work is not None and self.state == "fetching":
            # The weights are gone because every shard has the step: somebody else was faster.
            self._ticket, self._spent = self._work.ticket, Spent()
            self._work, self.state = None, "idle"
            self._asked = [[] for _ in self._asked]
            return self._say_ready(now)
        if error.code in _OVERTAKEN:
            return []
        if error.code == "not-finite":
            # What was to come with the answer to the push has to be asked for.
            self._asked[shard or 0] = []
            again = self._fetch() if self.state == "fetching" else []
            return [Send(COORDINATOR, Trouble(self._session, self._ticket, error.text)), *again]
        raise RefusedError(error.code, error.text)

    def _entered(self) -> Welcome:
        if self._welcome is None:
            raise RuntimeError("the worker has not been welcomed yet")
        return self._welcome

    def _working(self) -> Work:
        if self._work is None:
            raise RuntimeError("the worker has no work")
        return self._work


def _addresses(welcome: Welcome) -> tuple[str, ...]:
    return tuple(address for address, _, _ in welcome.shards)
