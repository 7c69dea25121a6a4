"""Bytes that this process's sockets and this host's interfaces have carried, by the kernel's own count.

Of a TCP connection (struct tcp_info, <linux/tcp.h>): the stream's bytes, so ZeroMQ's framing is in them and the headers
of TCP and IP are not. Of an interface: whole packets as the kernel sees them, which may be larger than the
network's (segmentation offload), of all processes.
"""

import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["interface_bytes", "tcp_bytes"]

# tcpi_bytes_acked and tcpi_bytes_received (Linux 4.1): what was sent again, or lost before it left, does not count.
_COUNTS = struct.Struct("=QQ")
_OFFSET = 120


def tcp_bytes() -> tuple[int, int]:
    """Bytes sent and received on the TCP connections that this process has open; sent is what has arrived."""
    sent = received = 0
    for connection in _connections():
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _OFFSET + _COUNTS.size)
        if len(info) == _OFFSET + _COUNTS.size:
            acknowledged, came = _COUNTS.unpack_from(info, _OFFSET)
            sent += acknowledged
            received += came
    return sent, received


def interface_bytes(name: str) -> int:
    """Bytes in both directions through an interface of this network namespace; those of `lo`, which come back, once."""
    folder = Path("/sys/class/net") / name / "statistics"
    directions = ("tx_bytes",) if name == "lo" else ("tx_bytes", "rx_bytes")
    return sum(int((folder / direction).read_text()) for direction in directions)


def _connections() -> Iterator[Any]:
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            # The descriptor of the listing itself, or one that was closed meanwhile.
            continue
        with copy:
            if copy.type == socket.SOCK_STREAM and copy.family in (socket.AF_INET, socket.AF_INET6):
                yield copy
