"""A run of stub servers and stub workers, each a process of its own, on one node or on several."""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from exchange.nodes import HERE, Node
from exchange.stub_server import Task
from exchange.turns import Program

__all__ = ["StubRun"]

_START_SECONDS = 60.0
_END_SECONDS = 20.0
# A worker that has waited for its orders for long has lost its work: it may do the same step once more.
_SKIP = 2


class StubRun:
    """A context: the processes run until its end.

    task       what the servers are told
    workers    how many; as one crowd that waits for no orders where `crowd`
    servers    nodes of the servers, taken in turn
    clients    nodes of the workers, taken in turn
    local      listen on a Unix socket, as `ps-vae train` does, instead of tcp; only on one node
    cores      of the servers, and of the workers; None: any
    """

    def __init__(
        self,
        task: Task,
        workers: int,
        *,
        variables: Mapping[str, str],
        servers: Sequence[Node] = (HERE,),
        clients: Sequence[Node] = (HERE,),
        compute_seconds: float = 0.0,
        touches: bool = False,
        local: bool = False,
        crowd: bool = False,
        cores: tuple[Sequence[int] | None, Sequence[int] | None] = (None, None),
    ) -> None:
        self.task = task
        self.servers: list[Program] = []
        self.workers: list[Program] = []
        self._variables = variables
        self._places = (servers, clients)
        self._cores = cores
        self._local = local
        self._crowd = workers if crowd else 0
        self._count = 1 if crowd else workers
        self._words = ["--transport", task.transport, "--compute-ms", str(1e3 * compute_seconds)]
        self._words += ["--touch"] if touches else []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "StubRun":
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ps-vae-"))
            address = self._start_server(stack, folder, [])
            for _ in range(self.task.shards - 1):
                self._start_server(stack, folder, ["--join", address])
            for number in range(self._count):
                node = self._places[1][number % len(self._places[1])]
                words = ["--server", address, "--interface", node.interface, *self._words]
                words += ["--crowd", str(self._crowd)] if self._crowd else []
                command = ("exchange.stub_worker", *words)
                self.workers.append(stack.enter_context(self._program(command, node, self._cores[1])))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def exchange(self, count: int, *, skip: int = _SKIP, go_on: bool = False, timeout: float) -> list[dict[str, Any]]:
        """What each worker answers to an order that they all get; see `stub_worker`."""
        for worker in self.workers:
            worker.tell({"count": count, "skip": skip, "go_on": go_on})
        return [worker.answer(timeout) for worker in self.workers]

    def sample(self) -> dict[str, Any]:
        """How the first server stands; see `stub_server`."""
        self.servers[0].tell({"do": "sample"})
        sampled: dict[str, Any] = self.servers[0].answer(_END_SECONDS)
        return sampled

    def stop(self) -> list[dict[str, Any]]:
        """End the run; what each server leaves behind, in the order of the shards."""
        for worker in self.workers:
            # One that waits for an order goes on.
            if worker.process.stdin is not None:
                worker.process.stdin.close()
        self.servers[0].tell({"do": "stop"})
        return [server.answer(_END_SECONDS) for server in self.servers]

    def _start_server(self, stack: contextlib.ExitStack, folder: str, words: Sequence[str]) -> str:
        number = len(self.servers)
        node = self._places[0][number % len(self._places[0])]
        listen = f"ipc://{folder}/{number}" if self._local else f"tcp://{node.address}:*"
        task = json.dumps(dataclasses.asdict(self.task))
        command = ("exchange.stub_server", "--task", task, "--listen", listen, *words)
        self.servers.append(stack.enter_context(self._program(command, node, self._cores[0])))
        address: str = self.servers[-1].answer(_START_SECONDS)["address"]
        return address

    def _program(self, command: Sequence[str], node: Node, cores: Sequence[int] | None) -> Program:
        return Program(command, prefix=node.prefix, cores=cores, variables=self._variables)
