"""Workers come for work, bring it back, or cannot do it: the dialogue around the backlog.

worker says                          meaning                              effect
ready, ticket of its lease           its work is pushed                   delivered; the next is given
ready, an older ticket               it has not seen its work             the same again
ready, of a lease that it lost       it was late                          the next is given
trouble                              its work cannot be done              another's; the second time the run fails
nothing, until its lease ends        late, stuck or dead                  another's; it may come back
"""

from ps_vae.ps.backlog import Backlog
from ps_vae.ps.members import Client
from ps_vae.ps.messages import Ready, Trouble, Work
from ps_vae.ps.outbox import Member, Output, Send, Sender
from ps_vae.ps.roster import Roster
from ps_vae.ps.work import Lease

__all__ = ["Assignments"]


class Assignments:
    """Who does what. Nothing is given out unless `is_open`.

    awaited  workers that have to be ready before any of them gets work: then the first step, too, is shared by all
    """

    def __init__(self, backlog: Backlog, roster: Roster, awaited: int = 1) -> None:
        self.is_open = False
        self._awaited = awaited
        self._backlog = backlog
        self._roster = roster
        self._troubles: dict[int, set[int]] = {}

    def ready(self, sender: Sender, ready: Ready, now: float) -> list[Output]:
        """A worker is idle, or has not seen its work."""
        worker = self._roster.find(ready.session, "worker", now)
        worker.sender, worker.warming = sender, False
        if ready.ticket == worker.ticket and not worker.idle:
            if ready.nanoseconds:
                worker.measured(ready.nanoseconds / 1e9)
                worker.spent(ready.nanoseconds, ready.encoding, ready.waiting)
            self._backlog.delivered(worker, now)
        elif worker.lease is not None and ready.ticket < worker.ticket:
            if (found := self._backlog.lease_of(worker)) is not None:
                return [Send(sender, _work(found[1]))]
            self._backlog.release(worker)
        worker.idle = worker.lease is None
        self._backlog.note(worker)
        if self._awaited == 0:
            return self._give(worker, now)
        if sum(not client.warming for client in self._roster.workers) < self._awaited:
            return []
        self._awaited = 0
        return self.hand_out(now)

    def trouble(self, trouble: Trouble, now: float) -> tuple[list[Output], str | None]:
        """A worker cannot do its work. Second: why the run fails, where a step was in trouble before."""
        worker = self._roster.find(trouble.session, "worker", now)
        step = self._backlog.refused(worker, trouble.ticket)
        if step is None:
            return [], None
        worker.idle = worker.lease is None
        self._backlog.note(worker)
        self._troubles = {known: seen for known, seen in self._troubles.items() if known >= self._backlog.lowest}
        seen = self._troubles.setdefault(step, set())
        seen.add(trouble.ticket)
        if len(seen) > 1:
            return [], f"{worker.name}: {trouble.text}"
        return [Member(worker.name, "in trouble", trouble.text), *self.hand_out(now)], None

    def leave(self, client: Client, change: str, why: str, now: float) -> list[Output]:
        """The client is gone."""
        self._backlog.lost(client)
        del self._roster.clients[client.session]
        return [Member(client.name, change, why), *self.hand_out(now)]

    def restart(self, client: Client) -> None:
        """The client said hello again: it starts from scratch, and whatever it was doing is lost."""
        self._backlog.lost(client)

    def watch(self, now: float) -> list[Output]:
        """Take back what is overdue, let go who is silent, give out what there is."""
        outputs: list[Output] = []
        for lease in self._backlog.overdue(now):
            worker = self._roster.clients.get(lease.session)
            if worker is not None and worker.lease == lease.ticket:
                self._backlog.lost(worker)
                why = f"no answer for {lease.seconds:.1f} s; its part of step {lease.step} goes to another"
                outputs.append(Member(worker.name, "late", why))
        self._backlog.reissue_undelivered(now)
        for client in self._roster.silent(now):
            outputs += self.leave(client, "lost", f"not heard of for {now - client.heard:.0f} s", now)
        return outputs + self.hand_out(now)

    def hand_out(self, now: float) -> list[Output]:
        """Give work to everybody who waits for it; where work was lost, to some who wait for their weights too."""
        if not self.is_open or self._awaited:
            return []
        outputs = [output for worker in self._roster.workers for output in self._give(worker, now)]
        for worker in self._roster.workers if self._backlog.has_lost_work else ():
            if self._backlog.recall(worker):
                outputs += self._give(worker, now)
        return outputs

    def _give(self, worker: Client, now: float) -> list[Output]:
        if not worker.idle or not self.is_open:
            return []
        lease = self._backlog.next_work(worker, now)
        return [] if lease is None else [Send(worker.sender, _work(lease))]


def _work(lease: Lease) -> Work:
    return Work(lease.ticket, lease.step, tuple((block.start, block.stop) for block in lease.blocks))
