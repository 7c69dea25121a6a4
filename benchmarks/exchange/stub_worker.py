"""A worker of ps_vae without a model: the shipped client, whose program computes nothing, or sleeps in its place.

    python -m exchange.stub_worker --server ADDRESS [--compute-ms 5] [--transport auto|tcp] [--touch]
    python -m exchange.stub_worker --server ADDRESS --crowd 64        so many processes, which wait for no orders

order {"count", "skip", "go_on"}   do `skip` exchanges (at least one) and then `count` that are reported; wait for the
                                   next order then, or go on without one
answer {"exchanges": [[step, [first microbatch of each block], begun, computed, sent, ended], ...],
        "sent", "received", "interface"}

Times are nanoseconds of the host's monotonic clock: an exchange begins when the weights of its step are there, and ends
when the next step's are; work of the same step that is given out once more is part of it. "sent" is when the push was
handed over, to ZeroMQ or as a place in memory. Bytes are of this worker's sockets and of the interface, while the
reported exchanges took place.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from exchange.counters import interface_bytes, tcp_bytes
from exchange.turns import Orders, answer
from ps_vae.ps.actions import Result
from ps_vae.ps.blocks import Block
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.client import work
from ps_vae.ps.codecs.codec import Codec
from ps_vae.ps.messages import Welcome

__all__ = ["Stub"]

_CONNECT_SECONDS = 120.0
# Small, and not zero: the kernel would give pages of zeros that nobody has written to no memory.
_VALUE = 1e-3


class Stub:
    """A worker's program.

    orders     None: go on without any
    metrics    numbers that go with each push
    touches    whether the weights are read and the gradient is written, as a model would
    interface  whose bytes are counted
    """

    def __init__(
        self, orders: Orders | None, compute_seconds: float, metrics: int, *, touches: bool, interface: str
    ) -> None:
        self.has_ended = False
        self._orders = orders
        self._compute_seconds = compute_seconds
        self._metrics = (0.0,) * metrics
        self._touches = touches
        self._interface = interface
        self._gradients = Buffers(0)
        self._written: set[int] = set()
        self._exchanges: list[list[Any]] = []
        self._done = 0
        self._bytes = (0, 0, 0)
        self._order: dict[str, Any] = {}

    def codecs(self, welcome: Welcome) -> tuple[list[Codec], int]:
        return [], 0

    def pull_codecs(self, welcome: Welcome) -> list[Codec]:
        return []

    def join(self, welcome: Welcome, gradients: Buffers) -> None:
        self._gradients = gradients
        give = gradients.give

        def noted(array: Any) -> None:
            # An array is given back when what it holds is on its way.
            if self._exchanges:
                self._exchanges[-1][4] = time.perf_counter_ns()
            give(array)

        gradients.give = noted  # type: ignore[method-assign]
        if self._orders is not None and not self._order:
            # Before it says that it is ready: nobody waits for its share of a step.
            self._obey(self._orders)

    def compute(self, weights: Any, step: int, blocks: Sequence[Block]) -> list[Result]:
        begun = time.perf_counter_ns()
        is_repeated = bool(self._exchanges) and self._exchanges[-1][0] == step
        if self._orders is None:
            self._exchanges.clear()
        elif self._exchanges and not is_repeated:
            self._exchanges[-1][5] = begun
            begun = self._next(self._orders)
        if self._compute_seconds:
            time.sleep(self._compute_seconds)
        if self._touches:
            weights.sum()
        results = [Result(block, self._gradient(), self._metrics) for block in blocks]
        starts = [block.start for block in blocks]
        if is_repeated and self._exchanges:
            # It lost its lease: part of the exchange, which lasts until there are new weights.
            self._exchanges[-1][1] = sorted({*self._exchanges[-1][1], *starts})
        else:
            self._exchanges.append([step, starts, begun, time.perf_counter_ns(), 0, 0])
        return results

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)

    def _gradient(self) -> Any:
        gradient = self._gradients.take()
        address = gradient.ctypes.data
        if self._touches or address not in self._written:
            gradient.fill(_VALUE)
            self._written.add(address)
        return gradient

    def _next(self, orders: Orders) -> int:
        """When the next exchange begins, which is when the one before ended; not before it is ordered."""
        now = self._exchanges[-1][5]
        self._done += 1
        if self._done == self._order["skip"]:
            return self._start_over()
        if self._done < self._order["skip"] + self._order["count"]:
            return now
        self._report()
        if self._order.get("go_on", False):
            self._orders = None
            return now
        self._obey(orders)
        return time.perf_counter_ns()

    def _start_over(self) -> int:
        self._exchanges.clear()
        self._bytes = self._counted()
        return time.perf_counter_ns()

    def _report(self) -> None:
        sent, received, interface = (after - before for before, after in zip(self._bytes, self._counted(), strict=True))
        answer({"exchanges": self._exchanges, "sent": sent, "received": received, "interface": interface})

    def _obey(self, orders: Orders) -> None:
        order = orders.wait()
        self._exchanges.clear()
        self._done = 0
        if order is None:
            # What is computed now is pushed, and then `should_stop` is asked.
            self.has_ended, self._orders = True, None
        else:
            self._order = order

    def _counted(self) -> tuple[int, int, int]:
        return (*tcp_bytes(), interface_bytes(self._interface))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--transport", default="auto")
    parser.add_argument("--compute-ms", type=float, default=0.0)
    parser.add_argument("--metrics", type=int, default=2)
    parser.add_argument("--touch", action="store_true")
    parser.add_argument("--interface", default="lo")
    parser.add_argument("--crowd", type=int, default=0)
    words = parser.parse_args()
    children = []
    for _ in range(words.crowd):
        # Forked, not started anew: sixty-four interpreters take a while to import NumPy.
        if (child := os.fork()) == 0:
            break
        children.append(child)
    if len(children) == words.crowd > 0:
        _wait_for(children)
        return
    orders = None if words.crowd else Orders()
    stub = Stub(orders, words.compute_ms / 1e3, words.metrics, touches=words.touch, interface=words.interface)
    outcome = work(
        words.server,
        stub,
        name=f"stub:{os.getpid()}",
        fingerprint="stub",
        connect_timeout=_CONNECT_SECONDS,
        should_stop=lambda: stub.has_ended,
        transport=words.transport,
    )
    if outcome.failed:
        sys.exit(outcome.reason)


def _wait_for(children: Sequence[int]) -> None:
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
