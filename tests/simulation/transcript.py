"""What happened, one line an event: when, who, what, and what became of it. Formatted only when somebody reads it.

12.3456  worker-1 -> shard-0      push step 3 [0, 2) of version 3, then [4, 4]    arrives 12.3789
12.3789  shard-0 <- worker-1      push step 3 [0, 2) of version 3, then [4, 4]
13.0000  worker-2                 is killed, and its connections break
"""

from collections import deque
from typing import Any

# The newest lines that are kept: of many workers or long runs the beginning is not what is looked for.
KEPT = 4000


class Transcript:
    """A ring of events."""

    def __init__(self, kept: int | None = KEPT) -> None:
        self._events: deque[tuple[float, str, Any, str]] = deque(maxlen=kept)

    def note(self, time: float, who: str, what: Any, fate: str = "") -> None:
        """`what` is a message or a text."""
        self._events.append((time, who, what, fate))

    def lines(self, newest: int | None = None) -> list[str]:
        """The newest so many lines, or all that are kept."""
        events = list(self._events)
        return [_line(*event) for event in (events if newest is None else events[-newest:])]


def _line(time: float, who: str, what: Any, fate: str) -> str:
    text = what if isinstance(what, str) else f"{what.KIND}{_fields(what)}"
    return f"{time:10.4f}  {who:<24}  {text}{'    ' + fate if fate else ''}".rstrip()


def _fields(message: Any) -> str:
    match message.KIND:
        case "push":
            then = "" if message.then is None else f", then {list(message.then)}"
            return f" step {message.step} [{message.start}, {message.stop}) of version {message.version}{then}"
        case "pull":
            return f" {list(message.want)}{' exact' if message.exact else ''}"
        case "weights":
            return f" version {message.version}{' encoded' if message.encoded else ''}"
        case "work":
            return f" {message.ticket} step {message.step} {' '.join(f'[{a}, {z})' for a, z in message.blocks)}"
        case "ready":
            return f" {message.ticket}"
        case "applied":
            return f" before {message.before}{f' and {list(message.beyond)}' if message.beyond else ''}"
        case "snapshot" | "take-snapshot" | "milestone" | "report":
            return f" version {message.version}"
        case "error":
            return f" {message.code}: {message.text}"
        case "hello":
            return f" {message.session.decode().strip()}"
        case "stop" | "trouble":
            return f" {message.reason if message.KIND == 'stop' else message.text}"
    return ""
