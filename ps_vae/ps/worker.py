"""A worker's side of the dialogue: a state machine without sockets or clock.

    state      meaning                                        left by
    greeting   hello was sent                                 welcome -> warming
    warming    the program prepares model and data            prepared() -> idle
    idle       ready was sent, no work                        work -> fetching
    fetching   some shard's weights are not of a usable       the last missing weights -> computing
               version yet; they were asked for
    computing  the program computes                           computed() or failed() -> idle
    stopped    the run is over                                -

Whatever is lost on the way is asked for again by `tick`: hello, ready and pull are repeated until they are answered,
ready also while fetching.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ps_vae.errors import RefusedError
from ps_vae.ps.actions import RETRY_SECONDS, Action, Compute, Joined, Result, Stopped, Store, StoreWords
from ps_vae.ps.blocks import Block
from ps_vae.ps.consistency import Consistency, Versions
from ps_vae.ps.messages import (
    PROTOCOL,
    Bye,
    Error,
    Hello,
    Message,
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
_OVERTAKEN = ("gone", "stale", "not-shared")
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
        self._consistency = Consistency(0)
        self._held: list[int | None] = []
        self._asked: list[Versions | None] = []
        self._ticket = 0
        self._nanoseconds = 0
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
        self.state = "idle"
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
                return self._enter(message)
            case Stop():
                self.state = "stopped"
                return [Stopped(message.failed, message.reason)]
            case Error():
                return self._refused(message, now)
        return []

    def computed(
        self, results: Sequence[Result], nanoseconds: int, now: float, parts: Sequence[Sequence[Vector]] | None = None
    ) -> list[Action]:
        """Push what was computed: to each shard its slice of each block, the last push asking for the next weights.

        nanoseconds  that the computation took
        parts        of each result what goes to each shard, where that is not the slice itself
        """
        welcome, work = self._entered(), self._working()
        then = self._consistency.usable(work.step + 1)
        actions: list[Action] = []
        for shard, (_, start, stop) in enumerate(welcome.shards):
            for number, result in enumerate(results):
                is_last = result is results[-1]
                push = Push(
                    run=welcome.run,
                    step=work.step,
                    start=result.block.start,
                    stop=result.block.stop,
                    version=self._held[shard] or 0,
                    metrics=result.metrics,
                    then=(then.low, then.high) if is_last else None,
                    payload=(result.gradient[start:stop] if parts is None else parts[number][shard],),
                )
                actions.append(Send(ShardAddress(shard), push))
            self._asked[shard] = then
        self._ticket, self._nanoseconds = work.ticket, nanoseconds
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
            self._asked = [None] * len(self._asked)
            # The weights may never come: our work may be somebody else's by now, and we may have missed the next.
            return [*self._say_ready(now), *self._fetch()]
        return []

    def _enter(self, welcome: Welcome) -> list[Action]:
        self._welcome = welcome
        self._consistency = Consistency(welcome.bound)
        self._held = [None] * len(welcome.shards)
        self._asked = [None] * len(welcome.shards)
        self._ticket = self._nanoseconds = 0
        self._work = None
        self.state = "warming"
        return [Joined(welcome)]

    def _say_ready(self, now: float) -> list[Action]:
        self._sent_at = now
        return [Send(COORDINATOR, Ready(self._session, self._ticket, self._nanoseconds))]

    def _take_work(self, work: Work, now: float) -> list[Action]:
        if work.ticket <= (self._work.ticket if self._work is not None else self._ticket):
            return []
        self._work, self.state, self._sent_at = work, "fetching", now
        return self._fetch()

    def _fetch(self) -> list[Action]:
        """Ask for the weights that are missing; compute where none is."""
        work, welcome = self._working(), self._entered()
        usable = self._consistency.usable(work.step)
        actions: list[Action] = []
        is_waiting = False
        for shard, version in enumerate(self._held):
            asked = self._asked[shard]
            if asked is not None and asked.overlaps(usable) and asked.low <= work.step:
                # Usable weights are on their way, perhaps newer ones than we hold, and do not wait for this very work.
                is_waiting = True
            elif version is None or version not in usable:
                is_waiting = True
                self._asked[shard] = usable
                actions.append(Send(ShardAddress(shard), Pull(welcome.run, (usable.low, usable.high), False)))
        if is_waiting:
            return actions
        self.state = "computing"
        return [Compute(work.step, tuple(Block(*block) for block in work.blocks))]

    def _take_weights(self, shard: int, weights: Weights) -> list[Action]:
        welcome = self._entered()
        _, start, stop = welcome.shards[shard]
        asked = self._asked[shard]
        if asked is None or weights.version not in asked:
            return []
        if len(weights.payload) != 1 or not (weights.encoded or weights.payload[0].size == stop - start):
            sizes = [vector.size for vector in weights.payload]
            raise RefusedError("bad-size", f"shard {shard + 1} sent {sizes} numbers, its slice has {stop - start}")
        self._asked[shard] = None
        actions: list[Action] = []
        if weights.base is not None and weights.base != self._held[shard]:
            # A change of weights that are not here: they are asked for as they are.
            return self._fetch() if self.state == "fetching" else []
        # Where pushes are applied on arrival, the weights of one version change with each.
        if weights.version != self._held[shard] or not self._consistency.is_synchronous:
            self._held[shard] = weights.version
            if weights.encoded:
                actions.append(StoreWords(shard, weights.payload[0], weights.base is not None))
            else:
                actions.append(Store(start, weights.payload[0]))
        return [*actions, *(self._fetch() if self.state == "fetching" else [])]

    def _refused(self, error: Error, now: float) -> list[Action]:
        if error.code == "starting":
            self.waits_because = error.text
            return []
        if error.code in _FORGOTTEN:
            return self.start(now) if self.state not in ("greeting", "warming") else []
        if error.code == "gone" and self._work is not None and self.state == "fetching":
            # The weights are gone because every shard has the step: somebody else was faster.
            self._ticket, self._nanoseconds = self._work.ticket, 0
            self._work, self.state = None, "idle"
            self._asked = [None] * len(self._asked)
            return self._say_ready(now)
        if error.code in _OVERTAKEN:
            return []
        if error.code == "not-finite":
            return [Send(COORDINATOR, Trouble(self._session, self._ticket, error.text))]
        raise RefusedError(error.code, error.text)

    def _entered(self) -> Welcome:
        if self._welcome is None:
            raise RuntimeError("the worker has not been welcomed yet")
        return self._welcome

    def _working(self) -> Work:
        if self._work is None:
            raise RuntimeError("the worker has no work")
        return self._work
