"""One valid message of every kind, as somebody who knows a run would say it: what a fuzzer begins with."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ps_vae.ps.messages import (
    PROTOCOL,
    TO_CLIENT,
    TO_SERVER,
    Admit,
    Applied,
    Bye,
    Copy,
    Error,
    Follow,
    Hello,
    Join,
    Lead,
    Meet,
    Milestone,
    Moved,
    Present,
    Pull,
    Push,
    Ready,
    Replicate,
    Replicated,
    Report,
    Share,
    Snapshot,
    Standby,
    State,
    Status,
    Stop,
    TakeSnapshot,
    Trouble,
    Weights,
    Welcome,
    Who,
    Work,
)
from ps_vae.ps.record import record

__all__ = ["KINDS", "Known", "valid"]

KINDS: Mapping[str, type] = {**TO_SERVER, **TO_CLIENT}

_FINGERPRINT = "fuzz"
_CONFIG = b"{}"


@record
class Known:
    """What a member of a run knows.

    run           its name
    session       16 bytes that it says hello with
    following     16 bytes that it follows with
    shard         the one that it speaks to
    size          of that shard's slice
    microbatches  of a step
    steps         of the run
    version       that every shard had reached when it asked; steps below it are applied
    """

    run: bytes
    session: bytes
    following: bytes
    shard: int
    size: int
    microbatches: int
    steps: int
    version: int


def valid(known: Known) -> dict[str, Any]:
    """A message of each kind. Of tensors there is a few numbers' worth, but in the push, which is that of a whole step.

    That step is applied already: as it stands here the push is one that was sent again.
    """
    few = np.arange(8, dtype=np.float32)
    step = max(0, known.version - 1)
    run, session, following, shard = known.run, known.session, known.following, known.shard
    shards = (("tcp://127.0.0.1:9", 0, known.size),)
    bounds: dict[str, Any] = {"microbatches": known.microbatches, "steps": known.steps, "bound": 0, "delay": 0}
    messages = [
        Hello(PROTOCOL, session, "worker", "fuzz", _FINGERPRINT),
        Ready(session, 1, 1_000_000, 0, 0, 0),
        Trouble(session, 1, "the data are gone"),
        Report(session, 0, (("elbo", -100.0),), 0),
        Bye(session),
        Status(),
        Share(),
        Join(PROTOCOL, session, "tcp://127.0.0.1:9", True),
        Applied(run, shard, step, (), 0, 0, 0, 0, 0, None, None, session=session),
        Present(run, shard, session, "tcp://127.0.0.1:9", leads=False, incarnation=0, leader=""),
        Snapshot(run, shard, step, (0.0, 0.0), ("m", "v"), (few, few, few)),
        Standby(run, shard, session, following, step, step),
        Push(
            run,
            shard,
            session,
            1,
            step,
            0,
            known.microbatches,
            step,
            (-1.0, 1.0),
            None,
            (np.ones(known.size, np.float32),),
        ),
        Pull(run, shard, (0, None), False),
        Follow(run, shard, following),
        Replicated(following, step),
        TakeSnapshot(step),
        Stop(False, "done"),
        Error("gone", "too late"),
        Welcome(session=session, run=run, config=_CONFIG, shards=shards, first=0, version=step, moves=0, **bounds),
        Moved(1, ("tcp://127.0.0.1:9",)),
        Work(1, step, ((0, known.microbatches),)),
        Weights(step, False, None, (few,)),
        Milestone(step, False),
        State(b"{}"),
        Meet(b"\0ps", session),
        Admit(
            run=run,
            config=_CONFIG,
            shard=shard,
            start=0,
            stop=known.size,
            milestone=100,
            first=0,
            leader="",
            incarnation=0,
            version=step,
            names=("m",),
            payload=(few, few),
            **bounds,
        ),
        Lead(run, shard, 1, following),
        Who(run),
        Copy(following, step, step, (0.0, 0.0), ("weights",), (few,)),
        Replicate(following, step, (0.0, 0.0), (few,)),
    ]
    return {message.KIND: message for message in messages}
