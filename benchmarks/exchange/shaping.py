"""Hosts with slow links between them, on one machine: network namespaces, a switch, and a token bucket at both ends.

    namespace NAME-switch    a bridge; each of its ports sends to its node at `rate`
    namespace NAME-node      eth0, which sends to the switch at `rate`

Without a rate nothing is shaped: links are as fast as the kernel copies.

Nothing of it is connected to anything else: the switch has no way out. Addresses are of 198.18.0.0/15, which is set
aside for measurements (RFC 2544). It takes root, and iproute2.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from exchange.nodes import Node

__all__ = ["bits_per_second", "cut", "heal", "missing", "network"]

_UNITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_PREFIX = "psb-"
# A bucket of a millisecond at full speed, a queue of fifty: what a switch with small buffers gives.
_BURST_SECONDS, _LEAST_BURST = 1e-3, 1 << 16
_QUEUE = "50ms"


def bits_per_second(rate: str) -> int:
    """Of "100mbit", as tc writes it. Raises ValueError where it is none."""
    found = re.fullmatch(r"(\d+)(kbit|mbit|gbit)", rate)
    if found is None or not int(found[1]):
        raise ValueError(f"{rate!r} is not a rate; write 100mbit or 1gbit")
    return int(found[1]) * _UNITS[found[2]]


def missing() -> str | None:
    """What this machine lacks for it, in a line; None where nothing is."""
    if os.geteuid() != 0:
        return "network namespaces need root: run it with sudo"
    tools = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    return f"{' and '.join(tools)} not found: install iproute2" if tools else None


@contextlib.contextmanager
def network(rate: str | None, count: int) -> Iterator[list[Node]]:
    """`count` nodes that reach one another at `rate`; they are gone at the end, with what a killed run has left.

    rate  "100mbit"; None: unshaped

    Raises RuntimeError with the words of ip or tc where that fails.
    """
    shape = _bucket(rate) if rate is not None else None
    _sweep()
    own = f"{_PREFIX}{os.getpid()}-"
    switch = f"{own}switch"
    try:
        _run("ip", "netns", "add", switch)
        _run("ip", "-n", switch, "link", "add", "switch", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "switch", "up")
        nodes = []
        for number in range(count):
            name, port, address = f"{own}{number}", f"port{number}", f"198.18.0.{number + 1}"
            _run("ip", "netns", "add", name)
            pair = ("type", "veth", "peer", "name", "eth0", "netns", name)
            _run("ip", "-n", switch, "link", "add", port, *pair)
            _run("ip", "-n", switch, "link", "set", port, "master", "switch", "up")
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run("ip", "-n", name, "link", "set", device, "up")
            if shape is not None:
                _run("tc", "-n", name, "qdisc", "add", "dev", "eth0", *shape)
                _run("tc", "-n", switch, "qdisc", "add", "dev", port, *shape)
            nodes.append(Node(address, "eth0", ("ip", "netns", "exec", name)))
        yield nodes
    finally:
        _remove([name for name in _namespaces() if name.startswith(own)])


def cut(node: Node) -> None:
    """Nothing reaches the node any more, and nothing leaves it; no connection is told so, and no device is down."""
    switch, port = _port(node)
    _run("ip", "-n", switch, "link", "set", port, "nomaster")


def heal(node: Node) -> None:
    """It is reached again."""
    switch, port = _port(node)
    _run("ip", "-n", switch, "link", "set", port, "master", "switch")


def _port(node: Node) -> tuple[str, str]:
    """The namespace of a node's switch, and the node's port there."""
    own, _, number = node.prefix[-1].rpartition("-")
    return f"{own}-switch", f"port{number}"


def _bucket(rate: str) -> list[str]:
    """tc's words for what a device sends."""
    burst = max(_LEAST_BURST, round(bits_per_second(rate) / 8 * _BURST_SECONDS))
    return ["root", "tbf", "rate", rate, "burst", f"{burst}b", "latency", _QUEUE]


def _sweep() -> None:
    """Remove what belongs to processes that are no more."""
    stale = []
    for name in _namespaces():
        found = re.fullmatch(rf"{_PREFIX}(\d+)-\w+", name)
        if found is not None and not Path(f"/proc/{found[1]}").exists():
            stale.append(name)
    _remove(stale)


def _remove(names: Sequence[str]) -> None:
    for name in names:
        # One that cannot be removed keeps none of the others.
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _namespaces() -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    return [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
