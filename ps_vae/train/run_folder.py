"""A run's folder.

run.json                     the configuration, versions of the libraries, when it was made
checkpoints/step-*           see checkpoint.py
metrics.jsonl                a line per report
result.json                  how the run ended
servers.json                 which run its servers have, while a first server that is started again can take it up; it
                             holds the run's secret: mode 0600
pictures/*.png
server.lock                  while a server has the run, see run_lock.py
"""

import datetime
import importlib.metadata
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ps_vae
from ps_vae.errors import CheckpointError, UsageError
from ps_vae.train.config import RunConfig
from ps_vae.train.durable import append_line, is_partial, make_folder, remove_partial, replace_file
from ps_vae.train.run_lock import LOCK

__all__ = ["RunFolder", "free_name"]

_FORMAT = 1
_LIBRARIES = ("numpy", "numba", "pyzmq", "msgpack", "safetensors")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths, and what is written to and read from them."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def has_begun(self) -> bool:
        """Whether there is a run to continue."""
        return (self.path / "run.json").exists()

    def make(self) -> None:
        """Make the folder of a new run. Raises UsageError where it exists already, and writes nothing then.

        What a server leaves that is killed before there is a run is nothing.
        """
        if self.path.exists() and (not self.path.is_dir() or any(map(_counts, self.path.iterdir()))):
            raise UsageError(f"{self.path} exists; continue it with --resume or give another --run-dir")
        try:
            make_folder(self.path)
        except OSError as error:
            raise UsageError(
                f"cannot make the run folder {self.path}: {error.strerror}; give another --run-dir"
            ) from None

    def create(self, config: RunConfig) -> None:
        """Make the folder of a new run, and run.json. Raises UsageError where it exists already."""
        self.make()
        self.write_config(config)

    def tidy(self) -> list[Path]:
        """Remove what a server that was killed left unfinished; returns what that was. Only while the lock is held."""
        return remove_partial(self.path) + remove_partial(self.checkpoints)

    def write_config(self, config: RunConfig) -> None:
        """(Re)write run.json."""
        made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        versions = {"ps_vae": ps_vae.__version__} | {name: importlib.metadata.version(name) for name in _LIBRARIES}
        about = {"format": _FORMAT, "made": made, "python": platform.python_version(), "versions": versions}
        self._write("run.json", {**about, "config": config.to_json()})

    def config(self) -> RunConfig:
        """What run.json says. Raises UsageError where there is none, CheckpointError where it makes no sense."""
        path = self.path / "run.json"
        try:
            plain = json.loads(path.read_text())
            if plain["format"] != _FORMAT:
                raise CheckpointError(f"{path}: format {plain['format']}, this version reads {_FORMAT}")
            return RunConfig.from_json(plain["config"])
        except OSError:
            raise UsageError(f"{self.path} is not a run: it has no run.json; name a folder below runs/") from None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: cannot be understood ({error!r}); was it written by another version?"
            ) from None

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl, whole or not at all. Raises OSError where the disk refuses."""
        append_line(self.path / "metrics.jsonl", json.dumps(line))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; one that was cut off when its writer was killed is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return [plain for plain in map(_object, lines) if plain is not None]

    def rewrite_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Let metrics.jsonl be these lines."""
        self._replace("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def write_result(self, result: dict[str, Any]) -> None:
        """(Re)write result.json."""
        self._write("result.json", result)

    def result(self) -> dict[str, Any] | None:
        """How the run ended; None while it runs, or where it was killed."""
        path = self.path / "result.json"
        return json.loads(path.read_text()) if path.exists() else None

    def forget_result(self) -> None:
        """The run goes on."""
        (self.path / "result.json").unlink(missing_ok=True)

    def servers(self) -> dict[str, Any]:
        """What servers.json says; empty where there is none, or nothing that makes sense."""
        path = self.path / "servers.json"
        return (_object(path.read_text(errors="replace")) if path.exists() else None) or {}

    def write_servers(self, known: dict[str, Any]) -> None:
        """(Re)write servers.json, for its owner alone. Raises OSError where the disk refuses."""
        self._write("servers.json", known, is_private=True)

    def forget_servers(self) -> None:
        """Nobody can take the run up from its servers any more."""
        (self.path / "servers.json").unlink(missing_ok=True)

    def _write(self, name: str, value: dict[str, Any], *, is_private: bool = False) -> None:
        self._replace(name, json.dumps(value, indent=2) + "\n", is_private=is_private)

    def _replace(self, name: str, text: str, *, is_private: bool = False) -> None:
        replace_file(self.path / name, text.encode(), is_private=is_private)


def free_name(parent: Path, data: str) -> Path:
    """A folder below `parent` that does not exist, named after the data: mnist-5k-1, mnist-5k-2, …"""
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in Path(data).name) or "run"
    number = 1
    while (parent / f"{stem}-{number}").exists():
        number += 1
    return parent / f"{stem}-{number}"


def _counts(path: Path) -> bool:
    return path.name != LOCK and not is_partial(path)


def _object(line: str) -> dict[str, Any] | None:
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return plain if isinstance(plain, dict) else None
