"""Writes checkpoints on a thread of its own: the disk may be slow, the server must not be."""

import errno
import os
import queue
import threading
from pathlib import Path

import numpy as np

from ps_vae.ps.messages import Snapshot
from ps_vae.ps.state import ShardState
from ps_vae.train.checkpoint import Checkpoint, write
from ps_vae.vae.layout import ParameterLayout

__all__ = ["CheckpointWriter", "Written", "assemble"]


class Written:
    """A version whose checkpoint is on the disk, or the error that kept it from there."""

    def __init__(self, version: int, path: Path | None, error: OSError | None) -> None:
        self.version = version
        self.path = path
        self.error = error


class CheckpointWriter:
    """Takes snapshots and writes them in order; the outcomes are collected by `finished`."""

    def __init__(self, folder: Path, layout: ParameterLayout, keep: int) -> None:
        self._folder = folder
        self._layout = layout
        self._keep = keep
        self._tasks: queue.Queue[Checkpoint | None] = queue.Queue()
        self._done: queue.SimpleQueue[Written] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def submit(self, checkpoint: Checkpoint) -> None:
        """Write this one. The arrays are the writer's from now on."""
        self._tasks.put(checkpoint)

    def finished(self) -> list[Written]:
        """What has been written, or has failed, since the last call."""
        outcomes = []
        while not self._done.empty():
            outcomes.append(self._done.get())
        return outcomes

    def close(self) -> None:
        """Finish what was submitted."""
        self._tasks.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (checkpoint := self._tasks.get()) is not None:
            try:
                path = write(self._folder, self._layout, checkpoint, keep=self._keep)
                self._done.put(Written(checkpoint.version, path, None))
            except OSError as error:
                self._done.put(Written(checkpoint.version, None, error))
            except MemoryError:
                full = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
                self._done.put(Written(checkpoint.version, None, full))


def assemble(layout: ParameterLayout, version: int, parts: tuple[Snapshot, ...]) -> Checkpoint:
    """The shards' slices put together, copied: their buffers go on being used."""
    weights = np.concatenate([part.payload[0] for part in parts])
    names = parts[0].names
    optimizer = {name: np.concatenate([part.payload[1 + at] for part in parts]) for at, name in enumerate(names)}
    return Checkpoint(ShardState(version, weights, optimizer), parts[0].metrics)
