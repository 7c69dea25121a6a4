"""Writes checkpoints on a thread of its own: the disk may be slow, the server must not be."""

import queue
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ps_vae.lines import WARNING, Line
from ps_vae.ps.outbox import SnapshotTaken
from ps_vae.ps.state import ShardState
from ps_vae.train.checkpoint import Checkpoint, Spare, prune, write
from ps_vae.train.durable import what_to_do
from ps_vae.vae.layout import ParameterLayout

__all__ = ["CheckpointWriter", "Written", "assemble"]

# What may wait for a disk that is slower than the run. The newest one waits in any case.
_WAITING_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a checkpoint.

    path   where it is on the disk; None where it is not
    error  what kept it from there; beside a path, what kept older ones from being removed
    """

    version: int
    path: Path | None
    error: Exception | None

    @property
    def failure(self) -> str:
        """Why it is not on the disk, as a sentence; empty where it is."""
        if self.path is not None:
            return ""
        return f"checkpoint of version {self.version} could not be written: {self._why}"

    @property
    def line(self) -> Line:
        """What is said of it."""
        about: dict[str, Any] = {
            "version": self.version,
            "path": None if self.path is None else str(self.path),
            "why": self._why,
        }
        if self.path is None:
            text = "WARNING: {failure}; training goes on"
            return Line("checkpoint-not-written", text, level=WARNING, failure=self.failure, **about)
        if self.error is not None:
            text = "WARNING: checkpoint {path} is written, but older ones could not be removed: {why}"
            return Line("checkpoints-not-removed", text, level=WARNING, **about)
        return Line("checkpoint-written", "checkpoint {path}", **about)

    @property
    def _why(self) -> str:
        """The error in words and, of a disk that is full, what to do."""
        if self.error is None:
            return ""
        if isinstance(self.error, OSError) and (advice := what_to_do(self.error)):
            return f"{self.error.strerror}; {advice}"
        return str(self.error) or type(self.error).__name__


class CheckpointWriter:
    """Takes snapshots and writes them in order; the outcomes are collected by `finished`.

    spare  which stay on the disk, though they are not of the `keep` newest; asked on another thread

    Invariant: those that wait are together at most 256 MiB, or one. Where the disk cannot keep up the oldest of them
    is left out, and its outcome says so.
    """

    def __init__(
        self,
        folder: Path,
        layout: ParameterLayout,
        keep: int,
        spare: Spare = lambda versions: (),
    ) -> None:
        self._folder = folder
        self._layout = layout
        self._keep, self._spare = keep, spare
        self._waiting: deque[SnapshotTaken] = deque()
        self._is_closing = False
        self._changed = threading.Condition()
        self._done: queue.SimpleQueue[Written] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def submit(self, snapshot: SnapshotTaken) -> None:
        """Write this one. The arrays are the writer's from now on."""
        with self._changed:
            self._waiting.append(snapshot)
            while len(self._waiting) > 1 and sum(map(_size, self._waiting)) > _WAITING_BYTES:
                left_out = self._waiting.popleft()
                slow = TimeoutError("left out, for the disk has not finished those before it")
                self._done.put(Written(left_out.version, None, slow))
            self._changed.notify()

    def finished(self) -> list[Written]:
        """What has been written, or has failed, since the last call."""
        outcomes = []
        while not self._done.empty():
            outcomes.append(self._done.get())
        return outcomes

    def close(self) -> None:
        """Finish what was submitted."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._write_next():
            pass

    def _write_next(self) -> bool:
        """Whether there may be more. What was written is let go of before the next is waited for."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            if not self._waiting:
                return False
            snapshot = self._waiting.popleft()
        path = None
        try:
            path = write(self._folder, self._layout, assemble(snapshot))
            prune(self._folder, snapshot.version, keep=self._keep, spare=self._spare)
            self._done.put(Written(snapshot.version, path, None))
        except Exception as error:
            # Whatever it is, it is told, and the next checkpoint is tried; without its frames, which hold the arrays.
            self._done.put(Written(snapshot.version, path, error.with_traceback(None)))
        return True


def assemble(snapshot: SnapshotTaken) -> Checkpoint:
    """The shards' slices put together."""
    parts = snapshot.parts
    weights = np.concatenate([part.payload[0] for part in parts])
    names = parts[0].names
    optimizer = {name: np.concatenate([part.payload[1 + at] for part in parts]) for at, name in enumerate(names)}
    return Checkpoint(ShardState(snapshot.version, weights, optimizer), parts[0].metrics)


def _size(snapshot: SnapshotTaken) -> int:
    return sum(array.nbytes for part in snapshot.parts for array in part.payload)
