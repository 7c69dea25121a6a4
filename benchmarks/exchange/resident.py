"""What of a process is in memory, by the kernel's account of it, in bytes.

Anonymous pages are the process's own: heap and stacks. Shared ones here are its segments and those of others that it
has read. Pages of files (libraries) are left out: they are there once for all processes, and the kernel drops them when
it needs room.
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mappings", "Resident", "mappings", "resident"]

_SEGMENT = "memfd:ps-vae"


@dataclass(frozen=True, slots=True)
class Resident:
    """anonymous, shared and file pages now; peak: the most that all three together ever were."""

    anonymous: int
    shared: int
    files: int
    peak: int

    @property
    def own(self) -> int:
        return self.anonymous + self.shared


@dataclass(frozen=True, slots=True)
class Mappings:
    """Resident pages of the process's own segments and of others', and its proportional share of all its pages."""

    own_segments: int
    borrowed_segments: int
    proportional: int


def resident(process: int) -> Resident:
    """Of /proc/PID/status. Raises OSError where the process is gone."""
    fields = {}
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[name] = 1024 * int(value.split()[0])
    # A process that is ending has none of them any more.
    return Resident(*(fields.get(name, 0) for name in ("RssAnon", "RssShmem", "RssFile", "VmHWM")))


def mappings(process: int) -> Mappings:
    """Of /proc/PID/smaps. Raises OSError where the process is gone, or not ours."""
    return _read(Path(f"/proc/{process}/smaps").read_text())


def _read(smaps: str) -> Mappings:
    own = borrowed = proportional = 0
    is_segment = is_shared = False
    for line in smaps.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            # 7f..-7f.. rw-s 00000000 00:01 1027  /memfd:ps-vae (deleted)
            is_segment, is_shared = _SEGMENT in line and "ledger" not in line, words[1].endswith("s")
        elif words[0] == "Pss:":
            proportional += 1024 * int(words[1])
        elif words[0] == "Rss:" and is_segment and is_shared:
            own += 1024 * int(words[1])
        elif words[0] == "Rss:" and is_segment:
            borrowed += 1024 * int(words[1])
    return Mappings(own, borrowed, proportional)
