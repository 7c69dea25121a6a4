"""What happened, one line an event: when, who, what, and what became of it. Formatted only when somebody reads it.

12.3456  worker-1 -> server-0     push step 3 [0, 2) of version 3, then [4, 4]    arrives 12.3789
12.3789  server-0 <- worker-1     push step 3 [0, 2) of version 3, then [4, 4]
12.4000  worker-1 -> server-1     push step 3 [0, 2) of version 3, then [4, 4]    lost: a partition
13.0000  worker-2                 is killed, and its connections break
"""

from collections import deque
from typing import Any

# The newest lines that are kept: of many workers or long runs the beginning is not what is looked for.
KEPT = 4000


class Transcript:
    """A ring of events."""

    def __init__(self, kept: int | None = KEPT) -> None:
        self._events: deque[tuple[Any, ...]] = deque(maxlen=kept)

    def note(self, time: float, who: str, what: str) -> None:
        """Something happened to somebody."""
        self._events.append((time, who, what))

    def sent(self, time: float, source: str, target: str, message: Any, fate: float | str) -> None:
        """A message was sent. `fate`: when it arrives, or what it is lost to."""
        self._events.append((time, source, " -> ", target, message, fate))

    def read(self, time: float, target: str, source: str, message: Any) -> None:
        """A message was read by a machine."""
        self._events.append((time, target, " <- ", source, message, None))

    def lines(self, newest: int | None = None) -> list[str]:
        """The newest so many lines, or all that are kept."""
        events = list(self._events)
        return [_line(*event) for event in (events if newest is None else events[-newest:])]


def _line(time: float, who: str, *rest: Any) -> str:
    if len(rest) == 1:
        return f"{time:10.4f}  {who:<24}  {rest[0]}"
    arrow, peer, message, fate = rest
    end = "" if fate is None else f"    lost: {fate}" if isinstance(fate, str) else f"    arrives {fate:.4f}"
    return f"{time:10.4f}  {who + arrow + peer:<24}  {message.KIND}{_fields(message)}{end}"


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
            beyond = f" and {list(message.beyond)}" if message.beyond else ""
            followed = _name(", relying on", message.follower) + _name(", leaving", message.leaving)
            return f" before {message.before}{beyond}{followed}"
        case "snapshot" | "take-snapshot" | "milestone" | "report":
            return f" version {message.version}"
        case "error":
            return f" {message.code}: {message.text}"
        case "moved":
            return f" {message.moves}: {', '.join(message.addresses)}"
        case "copy" | "replicate" | "replicated" | "follow":
            version = "" if message.KIND == "follow" else f" version {message.version},"
            return f"{version} following {message.following.decode().strip()}"
        case "standby":
            following = "nobody" if message.following is None else message.following.decode().strip()
            return f" version {message.version}, following {following} since {message.since}"
        case "lead":
            return f" shard {message.shard} as {message.incarnation}{_name(', over is', message.gone)}"
        case "join" | "admit":
            return f" {message.session.decode().strip()}" if message.KIND == "join" else f" to shard {message.shard}"
        case "hello":
            return f" {message.session.decode().strip()}"
        case "stop" | "trouble":
            return f" {message.reason if message.KIND == 'stop' else message.text}"
    return ""


def _name(what: str, following: bytes | None) -> str:
    return "" if following is None else f"{what} {following.decode().strip()}"
