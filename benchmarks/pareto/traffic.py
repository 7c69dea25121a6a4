"""Bytes that hosts have sent and received, by the count of their interfaces.

Whole packets, as the kernel sees them: with the headers of Ethernet, IP and TCP, acknowledgements, what was sent again,
and what nobody has asked for (ARP, IPv6's own). Segmentation is left to the (virtual) card, as on most hosts, so that
what a wire carries as forty packets with a header each may be counted as one.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from exchange.nodes import Node

__all__ = ["Traffic", "traffic"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes through one interface since it exists."""

    sent: int
    received: int

    @property
    def both(self) -> int:
        return self.sent + self.received

    def __sub__(self, before: "Traffic") -> "Traffic":
        return Traffic(self.sent - before.sent, self.received - before.received)


def traffic(nodes: Sequence[Node]) -> list[Traffic]:
    """Of each node's interface. Raises RuntimeError where it cannot be read."""
    return [_of(node) for node in nodes]


def _of(node: Node) -> Traffic:
    folder = f"/sys/class/net/{node.interface}/statistics"
    command = [*node.prefix, "cat", f"{folder}/tx_bytes", f"{folder}/rx_bytes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    sent, received = map(int, done.stdout.split())
    return Traffic(sent, received)
