"""One exchange of each system, side by side: rounds in which one after the other does a few of them.

memory copy       the tensors copied there and back, in one process: nothing can be below it
pyzmq             DEALER and ROUTER over tcp, with nothing around them; the measure of all others
pyzmq, ipc        the same over a Unix socket
gloo all-reduce   PyTorch's, of two processes: what DDP does with a gradient
ours, ...         one worker pushes a gradient, one server applies it and answers with the next weights; "sgd" is the
                  cheapest update there is, w - rate * g, the other one is Adam
"""

import contextlib
import importlib.util
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exchange.nodes import HERE, Node
from exchange.stub_run import StubRun
from exchange.stub_server import Task
from exchange.turns import Program

__all__ = ["OURS", "PYZMQ", "Place", "compare", "measure", "peers"]

Answer = dict[str, Any]
Burst = Callable[[int, int], Answer]

PYZMQ = "pyzmq"

_SECONDS = 120.0
# Of one system's exchanges in one round.
_BURST_SECONDS, _FEWEST, _MOST = 0.1, 3, 200
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 15


@dataclass(frozen=True, slots=True)
class Place:
    """Where the two sides run; `variables` is the environment of both."""

    variables: Mapping[str, str]
    servers: tuple[Node, ...] = (HERE,)
    clients: tuple[Node, ...] = (HERE,)

    @property
    def is_here(self) -> bool:
        return self.servers == (HERE,)


@dataclass(frozen=True, slots=True)
class _Ours:
    """A row of ours: the update, how tensors travel, and whether over a Unix socket."""

    update: str
    transport: str
    local: bool = False


OURS = {
    True: {
        "ours, shared memory": _Ours("sgd", "auto", local=True),
        "ours, tcp": _Ours("sgd", "tcp"),
        "ours, shared memory, Adam": _Ours("adam", "auto", local=True),
        "ours, tcp, Adam": _Ours("adam", "tcp"),
    },
    # Between hosts `auto` has to find out by itself that there is no memory to share.
    False: {"ours": _Ours("sgd", "auto"), "ours, Adam": _Ours("adam", "auto")},
}
"""Our rows on one host, and between hosts."""


@contextlib.contextmanager
def peers(place: Place, *, touches: bool) -> Any:
    """What ours is compared with: name -> what does so many exchanges of a size, or the reason why there is none."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Burst | str] = {}
        copy = stack.enter_context(_program(("exchange.memory_copy",), place, place.clients[0]))
        found["memory copy"] = lambda size, count: _ask([copy], {"size": size, "count": count})
        listens = {PYZMQ: f"tcp://{place.servers[0].address}:*"}
        if place.is_here:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ps-vae-"))
            listens["pyzmq, ipc"] = f"ipc://{folder}/echo"
        for name, listen in listens.items():
            server = stack.enter_context(_program(("exchange.echo", "server", listen), place, place.servers[0]))
            address = server.answer(_SECONDS)["address"]
            client = stack.enter_context(_program(("exchange.echo", "client", address), place, place.clients[0]))
            found[name] = _echo(client, touches)
        found["gloo all-reduce"] = _gloo(stack, place)
        yield found


def compare(
    size: int, others: Mapping[str, Burst | str], place: Place, seconds: float, *, touches: bool = False
) -> dict[str, Answer]:
    """Each system's bursts of exchanges of `size` parameters, for about so many seconds.

    Of each {"bursts": [answers], "why": the reason where there is none}; of ours also {"left": what the server answers
    at the end}.
    """
    with contextlib.ExitStack() as stack:
        bursts: dict[str, Burst] = {}
        answers: dict[str, Answer] = {}
        for name, other in others.items():
            answers[name] = {"bursts": [], "why": other if isinstance(other, str) else None}
            if not isinstance(other, str):
                bursts[name] = other
        runs = {}
        for name, row in OURS[place.is_here].items():
            task = Task(size, update=row.update, transport=row.transport)
            run = StubRun(
                task,
                1,
                variables=place.variables,
                servers=place.servers,
                clients=place.clients,
                touches=touches,
                local=row.local,
            )
            runs[name] = stack.enter_context(run)
            # It joins now, and does not wait in the doorway until it is its turn.
            run.exchange(1, timeout=_SECONDS)
            bursts[name] = _ours(run)
            answers[name] = {"bursts": [], "why": None}
        taken, failures = measure(bursts, size, seconds)
        for name in bursts:
            answers[name] |= {"bursts": taken.get(name, []), "why": failures.get(name)}
        for name, run in runs.items():
            if name not in failures:
                answers[name]["left"] = run.stop()[0]
    return answers


def measure(bursts: Mapping[str, Burst], size: int, seconds: float) -> tuple[dict[str, list[Answer]], dict[str, str]]:
    """Round after round, there and back through the systems, until the time is up; at least three rounds.

    Second: why those failed that have no bursts.
    """
    counts: dict[str, int] = {}
    taken: dict[str, list[Answer]] = {}
    failures: dict[str, str] = {}

    def take(name: str, count: int) -> Answer | None:
        try:
            return bursts[name](size, count)
        except RuntimeError as error:
            failures[name] = str(error)
            taken.pop(name, None)
            return None

    # The first burst of each touches its memory for the first time, and says how many exchanges fit into one.
    for name in bursts:
        if (first := take(name, 2)) is not None:
            usual = statistics.median(first["ns"]) / 1e9
            counts[name] = max(_FEWEST, min(_MOST, round(_BURST_SECONDS / usual)))
            taken[name] = []
    started = time.monotonic()
    for number in range(_MOST_ROUNDS):
        if number >= _LEAST_ROUNDS and time.monotonic() - started > seconds:
            break
        for name in list(taken) if number % 2 == 0 else list(reversed(taken)):
            if (burst := take(name, counts[name])) is not None:
                taken[name].append(burst)
    return taken, failures


def _ours(run: StubRun) -> Burst:
    def burst(size: int, count: int) -> Answer:
        (answer,) = run.exchange(count, timeout=_SECONDS)
        answer["ns"] = [ended - begun for _, _, begun, _, _, ended in answer["exchanges"]]
        return answer

    return burst


def _echo(client: Program, touches: bool) -> Burst:
    return lambda size, count: _ask([client], {"size": size, "count": count, "touch": touches})


def _gloo(stack: contextlib.ExitStack, place: Place) -> Burst | str:
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed (pip install '.[peers]')"
    nodes = (place.clients[0], place.servers[0])
    store = f"tcp://{nodes[0].address}:{_free_port()}"
    ranks = []
    for rank, node in enumerate(nodes):
        words = ("--rank", str(rank), "--store", store, "--interface", node.interface)
        ranks.append(stack.enter_context(_program(("exchange.all_reduce", *words), place, node)))
    try:
        for program in ranks:
            program.answer(_SECONDS)
    except RuntimeError as error:
        return str(error)
    return lambda size, count: _ask(ranks, {"size": size, "count": count})


def _ask(programs: Sequence[Program], order: Answer) -> Answer:
    for program in programs:
        program.tell(order)
    answers: list[Answer] = [program.answer(_SECONDS) for program in programs]
    return answers[0]


def _program(command: Sequence[str], place: Place, node: Node) -> Program:
    return Program(command, prefix=node.prefix, variables=place.variables)


def _free_port() -> int:
    """Of this host's; in a namespace of its own nobody else listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
