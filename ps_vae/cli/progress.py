"""Live progress on standard error: a bar that redraws itself on a terminal, a line every few seconds anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ps_vae.cli.terminal import count, megabytes, nats, say

__all__ = ["counting", "left", "pace", "quality", "training"]

State = dict[str, Any]

_LINE_SECONDS = 5.0


@contextmanager
def training() -> Iterator[Callable[[State], None]]:
    """While it is entered, the function that it gives shows a run's state, as `ps-vae status --json` has it."""
    if sys.stderr.isatty():
        with _training_on_terminal() as show:
            yield show
    else:
        said_at = float("-inf")

        def show_line(state: State) -> None:
            nonlocal said_at
            # Before there is a pace there is nothing to report.
            if state["examples_per_second"] and time.monotonic() - said_at >= _LINE_SECONDS:
                said_at = time.monotonic()
                words = [*quality(state), *pace(state), left(state)]
                say(f"{_steps(state)}: {', '.join(word for word in words if word)}")

        yield show_line


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """While it is entered, the function that it gives shows how many of how many are done; only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, total=total, completed=done)


def quality(state: State) -> list[str]:
    """How good the model is, in words; what is not known yet is left out."""
    words = []
    if state["elbo"] is not None:
        words.append(f"ELBO {nats(state['elbo'])}")
    # Without rows to validate on there is a version and no ELBO.
    if "elbo" in state["validation"]:
        words.append(f"validation {nats(state['validation']['elbo'])} at step {count(state['validation']['version'])}")
    return words


def pace(state: State) -> list[str]:
    """How fast it goes, in words; what is not known yet is left out."""
    workers = state["worker_count"]
    words = [f"{count(state['examples_per_second'])} examples/s"] if state["examples_per_second"] else []
    words.append(f"pushed {megabytes(state['bytes_pushed'])}, pulled {megabytes(state['bytes_pulled'])}")
    words.append("1 worker" if workers == 1 else f"{workers} workers")
    return words


def left(state: State) -> str:
    """What is still to come: `1:23 left`, or what the run is doing besides training."""
    if state["phase"] != "training":
        return str(state["phase"])
    speed = state["steps_per_second"]
    return f"{_clock((state['steps'] - state['version']) / speed)} left" if speed else ""


@contextmanager
def _training_on_terminal() -> Iterator[Callable[[State], None]]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    with Live(Text("starting"), console=Console(stderr=True), refresh_per_second=4, transient=True) as live:

        def show(state: State) -> None:
            head = Table.grid(padding=(0, 2))
            bar = ProgressBar(state["steps"], state["version"], width=24)
            head.add_row(_steps(state), bar, f"{_percent(state)}%", left(state))
            live.update(Group(head, Text(", ".join(quality(state))), Text(", ".join(pace(state)))))

        yield show


def _steps(state: State) -> str:
    return f"step {count(state['version'])} of {count(state['steps'])}"


def _percent(state: State) -> int:
    return int(100 * state["version"] / state["steps"])


def _clock(seconds: float) -> str:
    """1:02:03 or 2:03"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
