"""Says to the servers of a run what nobody should say, and counts what they answer.

    python -m faults.fuzzer --server ADDRESS --seed 0 [--keys FOLDER --key NAME]

order {"first", "count", "phase", "rate"}   say messages first ... first + count - 1, at most so many a second
answer {"sent", "withheld": {kind: count}, "mutations": {name: count}, "answers": {kind or code: count}, "seconds",
        "faults": [text, ...]}

Message n is made from (seed, n) and from what is known of the run alone. phase "before": connections that have never
said hello, nor joined; "after": a worker, a viewer, a server that wants to follow, and one that does.

Messages go out in batches, over several connections in turn. The last of a batch is one of a kind that does not exist,
whose name is new: a server answers what comes by one connection in its order, so when that is answered all before it
are. A batch that is not answered in time is a fault, and so are fewer errors of a kind than it has to bring about.
"""

import argparse
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import zmq
from exchange.turns import Orders, answer

from faults.expected import judge
from faults.mutations import Message, mutate
from faults.valid import Known, valid
from ps_vae.ps import sockets
from ps_vae.ps.addresses import on_host
from ps_vae.ps.frames import HEADER_LIMIT, decode, encode
from ps_vae.ps.messages import PROTOCOL, TO_CLIENT, Bye, Follow, Hello, Join, Standby, Welcome
from ps_vae.ps.security.door import use_keys
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.train.key_folder import KeyFolder

__all__ = ["BATCH", "Fuzzer", "Speaker", "knowledge"]

BATCH = 24
PHASES = {"before": ("stranger", "stranger"), "after": ("worker", "viewer", "server", "follower")}
"""The roles of the connections to each server."""

_OF_THE_DECODER = ("malformed", "unknown-message", "not-shared")
_PATIENCE_SECONDS = 20.0
_ASK_AGAIN_SECONDS = 0.5
_MOST_FAULTS = 20
_MOST_THROWN = 8


class Fuzzer:
    """All that is said to the servers of a run.

    shards  (address, size of the slice) of each server, the first server first
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        shards: Sequence[tuple[str, int]],
        known: Known,
        seed: int,
        keys: ClientKeys | None,
    ) -> None:
        self._context, self._shards, self._known, self._seed, self._keys = context, shards, known, seed, keys
        self._speakers: dict[str, list[Speaker]] = {}
        self._opened: set[bytes] = set()

    def say(self, first: int, count: int, phase: str, rate: float) -> dict[str, Any]:
        """See the module's text."""
        speakers = self._of(phase)
        found = [speaker.found for speaker in speakers]
        for one in found:
            one.clear()
        began = time.monotonic()
        batches = range(first, first + count, BATCH)
        for number, start in enumerate(batches):
            speaker = speakers[number % len(speakers)]
            speaker.hear()
            _wait_until(began + (start - first) / rate)
            speaker.say(start, min(BATCH, first + count - start))
        for speaker in speakers:
            speaker.hear()
        return {
            "sent": sum(one.sent for one in found),
            "seconds": time.monotonic() - began,
            **{name: dict(sum((getattr(one, name) for one in found), Counter())) for name in _COUNTED},
            "faults": [fault for one in found for fault in one.faults][:_MOST_FAULTS],
        }

    def close(self) -> None:
        for speaker in [speaker for speakers in self._speakers.values() for speaker in speakers]:
            speaker.close()

    def _of(self, phase: str) -> list["Speaker"]:
        if phase not in self._speakers:
            self._speakers[phase] = list(self._made(phase))
        return self._speakers[phase]

    def _made(self, phase: str) -> Iterator["Speaker"]:
        draw = random.Random(f"{self._seed} {phase}")
        for role in PHASES[phase]:
            # The same one speaks to all servers.
            session, following = draw.randbytes(16), draw.randbytes(16)
            for shard, (address, size) in enumerate(self._shards):
                known = Known(
                    run=self._known.run,
                    session=session,
                    following=following,
                    shard=shard,
                    size=size,
                    microbatches=self._known.microbatches,
                    steps=self._known.steps,
                    version=self._known.version,
                )
                if role in ("worker", "viewer"):
                    self._opened.add(session)
                yield Speaker(self._context, address, role, known, self._opened, self._seed, self._keys)


_COUNTED = ("withheld", "mutations", "answers")


class _Found:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.sent = 0
        self.withheld: Counter[str] = Counter()
        self.mutations: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []


class Speaker:
    """One connection, and what is said by it.

    opened sessions that anybody here has said hello with
    found  what came of that since it was cleared
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        role: str,
        known: Known,
        opened: set[bytes],
        seed: int,
        keys: ClientKeys | None,
    ) -> None:
        self.found = _Found()
        self._opened = opened
        self._context, self._address, self._role, self._known = context, address, role, known
        self._seed, self._keys = seed, keys
        self._messages = {kind: Message(message) for kind, message in valid(known).items()}
        self._kinds = list(self._messages)
        self._socket = self._connected()
        self._thrown: deque[zmq.Socket[bytes]] = deque()
        self._batch: tuple[int, int, Counter[str]] | None = None

    def say(self, first: int, count: int) -> None:
        """A batch, to be heard before the next."""
        expected: Counter[str] = Counter()
        for message in self._introduction():
            self._send(encode(message))
        for number in range(first, first + count):
            name, frames = self.made(number)
            self.found.mutations[name] += 1
            judgement = judge(frames, self._known, self._opened, is_member=self._role != "stranger")
            if judgement.withheld is not None:
                self.found.withheld[judgement.withheld] += 1
                continue
            self.found.sent += 1
            if max(map(len, frames)) > max(4 * self._known.size, HEADER_LIMIT):
                self._throw(frames)
                continue
            expected.update(judgement.codes)
            self._opened.update(judgement.sessions)
            self._send(frames)
        self._send([msgpack.packb({"t": _mark(first)})])
        self._batch = (first, count, expected)

    def made(self, number: int) -> tuple[str, list[bytes]]:
        """What is done to which message, and its frames, by this speaker under this number."""
        draw = random.Random((self._seed << 40) | number)
        return mutate(draw, draw.choice(self._kinds), self._messages)

    def hear(self) -> None:
        """All that is answered to the batch, if there is one."""
        if self._batch is None:
            return
        (first, count, expected), self._batch = self._batch, None
        came: Counter[str] = Counter()
        end = time.monotonic() + _PATIENCE_SECONDS
        mark = _mark(first)
        while not self._take(came, mark):
            if time.monotonic() > end or not self._socket.poll(1000 * _PATIENCE_SECONDS):
                self._note(first, count, f"were not answered within {_PATIENCE_SECONDS:g} s")
                self._socket.close(0)
                self._socket = self._connected()
                return
        self.found.answers.update(came)
        missing = expected - came
        # Where there are keys, some things are not for everybody to say, and that is what is looked at first.
        excused = self._keys is not None and missing.keys().isdisjoint(_OF_THE_DECODER)
        if missing and not (excused and missing.total() <= came["wrong-key"]):
            self._note(first, count, f"lack these errors: {dict(missing)}; there were {dict(came)}")

    def close(self) -> None:
        if self._known.shard == 0 and self._role in ("worker", "viewer"):
            self._send(encode(Bye(self._known.session)))
        for dealer in self._thrown:
            dealer.close(0)
        self._socket.close(1000)

    def _take(self, came: Counter[str], mark: str) -> bool:
        """Count what is here; whether the mark's answer is among it."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            headers = msgpack.unpackb(frames[0], raw=False)
            for header in headers if isinstance(headers, list) else [headers]:
                if header["t"] != "error":
                    came[header["t"]] += 1
                elif mark in header["e"]:
                    return True
                else:
                    came[header["c"]] += 1

    def _introduction(self) -> list[Any]:
        known = self._known
        match self._role:
            case "worker" | "viewer" if known.shard == 0:
                role = "worker" if self._role == "worker" else "evaluator"
                return [Hello(PROTOCOL, known.session, role, f"fuzz {role}", "fuzz")]
            case "server" | "follower" if known.shard == 0:
                joins = Join(PROTOCOL, known.session, self._address, True)
                stands = Standby(known.run, 0, known.session, None, 0, 0)
                return [joins, stands] if self._role == "follower" else [joins]
            case "follower":
                return [Follow(known.run, known.shard, known.following)]
        return []

    def _throw(self, frames: Sequence[bytes]) -> None:
        """By a connection of its own, which the server is going to close."""
        if len(self._thrown) == _MOST_THROWN:
            self._thrown.popleft().close(0)
        self._thrown.append(self._connected())
        self._thrown[-1].send_multipart(frames)

    def _send(self, frames: Sequence[bytes]) -> None:
        self._socket.send_multipart(frames)

    def _connected(self) -> zmq.Socket[bytes]:
        dealer = self._context.socket(zmq.DEALER)
        sockets.configure(dealer, 1 << 33)
        # An answer that waits here is not one that a server has not given.
        dealer.setsockopt(zmq.RCVHWM, 0)
        dealer.setsockopt(zmq.SNDTIMEO, round(1000 * _PATIENCE_SECONDS))
        if self._keys is not None:
            use_keys(dealer, self._keys)
        dealer.connect(self._address)
        return dealer

    def _note(self, first: int, count: int, what: str) -> None:
        if len(self.found.faults) < _MOST_FAULTS:
            who = f"a {self._role} at the server of shard {self._known.shard + 1}"
            self.found.faults.append(f"messages {first} to {first + count - 1} of {who} {what}")


def knowledge(context: zmq.Context[Any], address: str, keys: ClientKeys | None) -> tuple[list[tuple[str, int]], Known]:
    """(address, size) of each shard, and what a member of the run knows. Raises RuntimeError where it is not let in."""
    session = random.randbytes(16)
    dealer = context.socket(zmq.DEALER)
    if keys is not None:
        use_keys(dealer, keys)
    dealer.connect(address)
    end = time.monotonic() + _PATIENCE_SECONDS
    try:
        while time.monotonic() < end:
            dealer.send_multipart(encode(Hello(PROTOCOL, session, "evaluator", "fuzz", "")))
            if not dealer.poll(1000 * _ASK_AGAIN_SECONDS):
                continue
            welcome = decode(dealer.recv_multipart(), TO_CLIENT)
            if not isinstance(welcome, Welcome):
                continue
            dealer.send_multipart(encode(Bye(session)))
            shards = [(on_host(to, address), stop - start) for to, start, stop in welcome.shards]
            known = Known(
                run=welcome.run,
                session=session,
                following=session,
                shard=0,
                size=shards[0][1],
                microbatches=welcome.microbatches,
                steps=welcome.steps,
                version=welcome.version,
            )
            return [(address, shards[0][1]), *shards[1:]], known
    finally:
        dealer.close(1000)
    raise RuntimeError(f"the server at {address} does not let us in")


def _mark(first: int) -> str:
    return f"mark {first}."


def _wait_until(moment: float) -> None:
    if (left := moment - time.monotonic()) > 0:
        time.sleep(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--key")
    words = parser.parse_args()
    keys = None if words.keys is None else KeyFolder(words.keys).client_keys(words.key)
    context = zmq.Context()
    shards, known = knowledge(context, words.server, keys)
    fuzzer = Fuzzer(context, shards, known, words.seed, keys)
    orders = Orders()
    while (order := orders.wait()) is not None:
        answer(fuzzer.say(**order))
    fuzzer.close()
    context.term()


if __name__ == "__main__":
    sys.exit(main())
