"""When which version was published, as a run's metrics.jsonl tells it: a line a step with --report-every 1.

The first server writes the line when it has applied a step to its own slice, with the time in milliseconds. No shard
can be more than one step ahead of another under bsp, so a run that stands still stands still there. Looking at a file
costs the run nothing, and needs nobody who answers. A server that is started again throws away the lines of steps that
it has lost; who has read them before knows them.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Published", "longest_gap", "steps_again"]


class Published:
    """What has been seen so far.

    seen  (time, version) of each step: seconds since the epoch, in order
    """

    def __init__(self, run_dir: Path) -> None:
        self.seen: list[tuple[float, int]] = []
        self._path = run_dir / "metrics.jsonl"
        self._known: set[tuple[float, int]] = set()
        self._file, self._read = 0, 0

    def look(self) -> int:
        """Read what is new; the newest version, 0 before the first."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            number = os.fstat(file.fileno()).st_ino
            if number != self._file:
                self._file, self._read = number, 0
            file.seek(self._read)
            # A line that is still being written is read the next time.
            whole = file.read().rpartition(b"\n")[0]
            self._read += len(whole) + bool(whole)
            for line in map(json.loads, whole.splitlines()):
                step = line.get("time", 0.0), line["version"]
                if line["kind"] == "training" and step not in self._known:
                    self._known.add(step)
                    self.seen.append(step)
        return self.seen[-1][1] if self.seen else 0


def longest_gap(seen: Iterable[tuple[float, int]], since: float = 0.0) -> float:
    """The longest time, in seconds, between one version and the next, of those that end after `since`."""
    times = [time for time, _ in seen]
    return max((after - before for before, after in itertools.pairwise(times) if after >= since), default=0.0)


def steps_again(seen: Iterable[tuple[float, int]]) -> int:
    """How many steps were published more than once: what was lost, and computed again."""
    versions = [version for _, version in seen]
    return len(versions) - len(set(versions))
