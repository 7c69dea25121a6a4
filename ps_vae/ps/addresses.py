"""Addresses: where to listen, what to tell others, where to connect. Text in, text out."""

import ipaddress
import os
import re
import socket
from urllib.parse import urlsplit

__all__ = [
    "SAME_HOST",
    "connectable",
    "is_advertised",
    "is_local",
    "on_host",
    "plain",
    "reachable_from",
    "same_host",
    "sibling",
]

# What a server that runs on the coordinator's host gives as its host: each client knows that host by a name of its own.
SAME_HOST = "*"
_ANY = ("0.0.0.0", "::", SAME_HOST)
_TCP = re.compile(
    r"tcp://(?P<host>\*|[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?\]):(?P<port>[0-9]{1,5})"
)
_LONGEST_PATH = 107


def plain(endpoint: str) -> str:
    """An address as people write it: an IPv4 host that an IPv6 socket has bound comes as `[::ffff:127.0.0.1]`."""
    return re.sub(r"\[::ffff:(\d+\.\d+\.\d+\.\d+)\]", r"\1", endpoint)


def connectable(bound: str) -> str:
    """What a process on this host connects to in order to reach a socket bound at `bound`."""
    if bound.startswith("tcp://") and _host(bound) in _ANY:
        return f"tcp://127.0.0.1:{_port(bound)}"
    return bound


def is_advertised(address: str) -> bool:
    """Whether it is what a server may tell others to connect to: nothing that makes them fail, whoever says it."""
    if address.startswith("ipc://"):
        path = address.removeprefix("ipc://")
        return 0 < len(path.encode()) <= _LONGEST_PATH and path.isprintable()
    found = _TCP.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        return False
    if found["host"].startswith("["):
        try:
            ipaddress.ip_address(found["host"][1:-1])
        except ValueError:
            return False
    return True


def is_local(address: str) -> bool:
    """Whether only processes of this host can be at the other end: a local socket, or the loopback interface."""
    if not address.startswith("tcp://"):
        # What is no address at all is refused elsewhere.
        return True
    host = None
    try:
        host = _host(address)
        number = ipaddress.ip_address(host or "")
    except ValueError:
        return host == "localhost"
    return (getattr(number, "ipv4_mapped", None) or number).is_loopback


def same_host(bound: str) -> str:
    """What to advertise where the coordinator is on this host too."""
    return f"tcp://{SAME_HOST}:{_port(bound)}" if bound.startswith("tcp://") else bound


def on_host(address: str, coordinator: str) -> str:
    """Where a client that reaches the coordinator at `coordinator` finds a shard that advertises `address`."""
    if not address.startswith(f"tcp://{SAME_HOST}:"):
        return address
    return f"tcp://{_bracketed(_host(coordinator) or '127.0.0.1')}:{_port(address)}"


def reachable_from(bound: str, coordinator: str) -> str:
    """What to advertise for a socket bound at `bound`: of several addresses the one that faces the coordinator."""
    if not bound.startswith("tcp://") or _host(bound) not in _ANY:
        return bound
    target = (_host(coordinator) or "127.0.0.1", int(_port(coordinator)))
    family, kind, protocol, _, address = socket.getaddrinfo(*target, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # Nothing is sent: connecting a datagram socket only chooses the route.
        probe.connect(address)
        return f"tcp://{_bracketed(probe.getsockname()[0])}:{_port(bound)}"


def sibling(address: str) -> str:
    """Where a further server on the same host listens, seen from the first one's address."""
    if address.startswith("tcp://"):
        return f"tcp://{_bracketed(_host(address) or '127.0.0.1')}:*"
    return f"{address}.{os.urandom(4).hex()}"


def _host(address: str) -> str | None:
    return "*" if address.startswith("tcp://*:") else urlsplit(address).hostname


def _port(address: str) -> str:
    return address.rsplit(":", 1)[1]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
