"""The messages of the protocol, one dataclass each, a file a dialogue; `PROTOCOL.md` shows the same tables.

A run is named by 16 random bytes, drawn anew each time that its first server starts, and a session by 16 bytes that its
client chose. Steps, versions and microbatches are 0-based.
"""

from typing import Any

from ps_vae.ps.messages.clients import (
    Bye,
    Hello,
    Milestone,
    Moved,
    Pull,
    Push,
    Ready,
    Report,
    Trouble,
    Weights,
    Welcome,
    Work,
)
from ps_vae.ps.messages.everybody import Error, Meet, Share, State, Status, Stop
from ps_vae.ps.messages.followers import Copy, Follow, Lead, Replicate, Replicated, Standby
from ps_vae.ps.messages.servers import Admit, Applied, Join, Present, Snapshot, TakeSnapshot, Who

__all__ = [
    "PROTOCOL",
    "TO_CLIENT",
    "TO_SERVER",
    "Admit",
    "Applied",
    "Bye",
    "Copy",
    "Error",
    "Follow",
    "Hello",
    "Join",
    "Lead",
    "Meet",
    "Message",
    "Milestone",
    "Moved",
    "Present",
    "Pull",
    "Push",
    "Ready",
    "Replicate",
    "Replicated",
    "Report",
    "Share",
    "Snapshot",
    "Standby",
    "State",
    "Status",
    "Stop",
    "TakeSnapshot",
    "Trouble",
    "Weights",
    "Welcome",
    "Who",
    "Work",
]

PROTOCOL = 5

Message = Any

TO_SERVER: dict[str, type] = {
    cls.KIND: cls
    for cls in (
        Hello,
        Ready,
        Trouble,
        Report,
        Bye,
        Status,
        Share,
        Join,
        Applied,
        Present,
        Snapshot,
        Standby,
        Push,
        Pull,
        Follow,
        Replicated,
        TakeSnapshot,
        Stop,
        Error,
    )
}
TO_CLIENT: dict[str, type] = {
    cls.KIND: cls
    for cls in (
        Welcome,
        Moved,
        Work,
        Weights,
        Milestone,
        State,
        Meet,
        Stop,
        Error,
        Admit,
        TakeSnapshot,
        Who,
        Lead,
        Copy,
        Replicate,
    )
}
