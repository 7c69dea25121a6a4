"""What `ps-vae worker --as-one` does."""

import socket
import subprocess
from collections.abc import Callable, Sequence

from ps_vae.errors import UsageError
from ps_vae.jit import announce_compilation, start_numba
from ps_vae.ps.client import Outcome, work
from ps_vae.ps.security.keys import ClientKeys
from ps_vae.ps.sharing.segment import is_possible
from ps_vae.ps.transport import check_transport
from ps_vae.train.arithmetic import fingerprint, use_one_thread
from ps_vae.train.member import own_name
from ps_vae.train.node.program import LeaveError, Node
from ps_vae.train.processes import StopSignal, spawn

__all__ = ["work_as_one"]


def work_as_one(
    server: str,
    processes: int,
    member_arguments: Callable[[int], Sequence[str]],
    *,
    connect_timeout: float,
    data: str | None,
    transport: str,
    keys: ClientKeys | None = None,
    say: Callable[[str], None],
    should_stop: StopSignal,
) -> Outcome:
    """Work for the run at `server` until it ends, with `processes` members, as a single worker.

    member_arguments  of `ps-vae`, for a member whose end of the stream has this descriptor
    data, transport, keys  as train.worker.work_for takes them

    Raises UsageError where it cannot be, Unreachable, RefusedError, or PsVaeError with a member's words.
    """
    if not is_possible():
        raise UsageError("--as-one needs shared memory, that is Linux with /proc; leave it out")
    check_transport(transport)
    use_one_thread()
    announce_compilation(say)
    start_numba()
    arithmetic = fingerprint()

    def start(stream: socket.socket) -> subprocess.Popen[bytes]:
        return spawn(member_arguments(stream.fileno()), descriptors=[stream.fileno()])

    with Node(processes, start, arithmetic, data=data, say=say, should_stop=should_stop) as node:
        try:
            return work(
                server,
                node,
                name=f"{own_name()} ({processes} {'processes' if processes > 1 else 'process'})",
                fingerprint=arithmetic,
                connect_timeout=connect_timeout,
                should_stop=should_stop,
                transport=transport,
                keys=keys,
            )
        except LeaveError:
            return Outcome(False, "told to stop")
