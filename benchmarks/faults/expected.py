"""What a server has to answer to frames that somebody has tampered with, and which of them are not sent at all.

    the shipped decoder refuses them     one error, with its code
    they decode, and the run, session,   one error, by the table in `_refusal`
    role, protocol, address or server
    is wrong
    anything else                        whatever it is: an error of another code, an answer, or nothing at all

Withheld is what is well formed, and a lie: what the protocol takes on trust from whoever may say it at all
(PROTOCOL.md, *Known weaknesses*). A worker that asks for work and does none, numbers that pass for a gradient, a server
that says to hold a shard, or to have what it follows: such a peer harms a run by being one, and not by the form of what
it says.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from faults.valid import Known
from ps_vae.errors import PeerError
from ps_vae.ps.addresses import is_advertised
from ps_vae.ps.frames import unpack
from ps_vae.ps.identity import FIRST
from ps_vae.ps.members import ROLES
from ps_vae.ps.messages import (
    PROTOCOL,
    TO_SERVER,
    Applied,
    Bye,
    Error,
    Follow,
    Hello,
    Join,
    Present,
    Pull,
    Push,
    Ready,
    Replicated,
    Report,
    Share,
    Snapshot,
    Standby,
    Stop,
    TakeSnapshot,
    Trouble,
)
from ps_vae.ps.record import record

__all__ = ["Judgement", "judge"]

_OF_A_SESSION = (Ready, Trouble, Report, Bye)
_OF_A_RUN = (Push, Pull, Follow, Applied, Present, Snapshot, Standby)
_FOR_ANY_SERVER = (Push, Pull, Follow, Replicated, Share, Error)
_FOR_CLIENTS = (TakeSnapshot, Stop)


@record
class Judgement:
    """Of a parcel.

    codes     of the errors that have to come, at least
    withheld  the kind of the lie in it; None where it may be sent
    sessions  that it says hello with
    """

    codes: tuple[str, ...]
    withheld: str | None = None
    sessions: tuple[bytes, ...] = ()


def judge(frames: Sequence[bytes], known: Known, opened: Collection[bytes], *, is_member: bool) -> Judgement:
    """What one parcel leads to at the server of `known.shard`.

    opened     sessions that somebody has said hello with, or has wanted to
    is_member  whether the sender has come in; it does not mean to where it has not
    """
    try:
        messages = unpack(frames, TO_SERVER)
    except PeerError as error:
        return Judgement((error.code,))
    for message in messages:
        if _is_a_lie(message, known, opened) or (not is_member and _comes_in(message)):
            return Judgement((), message.KIND)
    found = [_refusal(message, known, opened) for message in messages]
    sessions = tuple(message.session for message in messages if isinstance(message, Hello))
    return Judgement(tuple(code for code in found if code is not None), sessions=sessions)


def _refusal(message: Any, known: Known, opened: Collection[bytes]) -> str | None:
    if isinstance(message, Push | Pull | Follow) and message.run != known.run:
        return "wrong-run"
    if isinstance(message, Push | Pull | Follow) and message.shard != known.shard:
        return "not-here"
    if known.shard:
        return None if isinstance(message, _FOR_ANY_SERVER) else "not-coordinator"
    if isinstance(message, _FOR_CLIENTS):
        return "unknown-message"
    if isinstance(message, Join | Present) and not is_advertised(message.address):
        return "malformed"
    if isinstance(message, _OF_A_RUN) and message.run != known.run:
        return "wrong-run"
    if isinstance(message, _OF_A_SESSION) and message.session not in opened:
        return "unknown-session"
    if isinstance(message, Hello | Join) and message.protocol != PROTOCOL:
        return "protocol"
    if isinstance(message, Hello) and message.role not in ROLES:
        return "bad-role"
    return None


def _comes_in(message: Any) -> bool:
    if isinstance(message, Hello):
        return message.protocol == PROTOCOL and message.role in ROLES
    return isinstance(message, Join) and message.protocol == PROTOCOL


def _is_a_lie(message: Any, known: Known, opened: Collection[bytes]) -> bool:
    match message:
        case Ready():
            return message.session in opened
        case Push() if message.run == known.run and message.shard == known.shard:
            return message.step >= known.version and _is_a_gradient(message, known)
        case Applied() if message.run == known.run:
            # Others' sessions nobody is told.
            return message.session == FIRST.session and bool(message.before <= known.steps)
        case Snapshot() if message.run == known.run:
            return {array.size for array in message.payload} == {known.size}
        case Replicated():
            return bool(message.following == known.following)
    return False


def _is_a_gradient(push: Push, known: Known) -> bool:
    return [array.size for array in push.payload] == [known.size] and bool(np.isfinite(push.payload[0]).all())
