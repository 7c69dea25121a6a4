"""What a process holds: memory, descriptors, sockets; and whether that grows."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["Sample", "cpu_seconds", "growth", "look", "tenths"]

Sample = dict[str, float]

_TICKS = os.sysconf("SC_CLK_TCK")


def look(pid: int) -> Sample:
    """What a process holds. Raises OSError.

    heap_mb, shared_mb  resident memory of its own, and what it shares with others (not files, such as libraries)
    descriptors         of them sockets, and segments (memfd)
    threads
    """
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.count(":")
    )
    if "RssAnon" not in status:
        raise ProcessLookupError(f"process {pid} has ended")
    opened = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            opened.append(os.readlink(path))
        except FileNotFoundError:
            # Closed since it was listed.
            continue
    heap, shared = (int(status[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "RssShmem"))
    return {
        "heap_mb": heap,
        "shared_mb": shared,
        "descriptors": float(len(opened)),
        "sockets": float(sum(name.startswith("socket:") for name in opened)),
        "segments": float(sum(name.startswith("/memfd:") for name in opened)),
        "threads": float(status["Threads"]),
    }


def cpu_seconds(pid: int) -> float:
    """That a process has computed so far, in user and system time. Raises OSError."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def growth(times: Sequence[float], values: Sequence[float], beside: Sequence[float]) -> float:
    """How much more it is at the last time than at the first, where it also depends on what is `beside`.

    By least squares: value = a + b beside + c time, and c (last - first). Of values that are measured while the number
    of workers changes that is what grows at the same number of them.
    """
    columns = np.stack([np.ones(len(times)), np.asarray(beside, float), np.asarray(times, float) - times[0]], axis=1)
    solution, *_ = np.linalg.lstsq(columns, np.asarray(values, float), rcond=None)
    return float(solution[2] * (times[-1] - times[0]))


def tenths(values: Sequence[float]) -> tuple[float, float]:
    """The mean over the first tenth of what was measured, and over the last."""
    share = max(1, len(values) // 10)
    return float(np.mean(values[:share])), float(np.mean(values[-share:]))
