"""Workers come for work, bring it back, or cannot do it: the dialogue around the backlog.

worker says                          meaning                              effect
ready, ticket of its lease           its work is pushed                   delivered; the next is given
ready, an older ticket               it has not seen its work             the same again
ready, of a lease that it lost       it was late                          the next is given
trouble                              its work cannot be done              another's
(a shard says of its work: refused)  its gradient is none                 another's
nothing, for longer than expected    slow                                 with backups: another's too
nothing, until its lease ends        late, stuck or dead                  another's; it may come back

Work in trouble goes to a worker that has not failed at that step, as long as there is one. A step that more than half
of the workers fail at, after a second attempt at least, ends the run: it is the gradient and not they. A step that is
applied in spite of trouble shows that it was the worker. One that others have done three pieces of work for in this
way, with none of its own that could be used in between, is put out: its session may not come back.
"""

from collections.abc import Iterable

from ps_vae.ps.backlog import Backlog
from ps_vae.ps.members import Client
from ps_vae.ps.messages import Error, Ready, Trouble, Work
from ps_vae.ps.outbox import Member, Output, Send, Sender
from ps_vae.ps.permits import permit
from ps_vae.ps.roster import Roster
from ps_vae.ps.work import Lease, StepWork

__all__ = ["Assignments"]

# Pieces of work in a row that others had to do for a worker.
_MOST_STRIKES = 3


class Assignments:
    """Who does what. Nothing is given out unless `is_open`.

    Invariant: of each worker, `_strikes` counts the pieces of its work in a row that others did in its place.

    awaited  workers that have to be ready before any of them gets work: then the first step, too, is shared by all
    """

    def __init__(self, backlog: Backlog, roster: Roster, awaited: int = 1) -> None:
        self.is_open = False
        self._awaited = awaited
        self._backlog = backlog
        self._roster = roster
        self._troubles: dict[int, dict[bytes, set[int]]] = {}
        self._strikes: dict[bytes, int] = {}

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
                return [Send(sender, self._work(found[1]))]
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
        """A worker cannot do its work. Second: why the run fails, where nobody can."""
        worker = self._roster.find(trouble.session, "worker", now)
        is_new, failure = self._in_trouble(worker, trouble.ticket, trouble.text)
        if not is_new or failure is not None:
            return [], failure
        worker.idle = worker.lease is None
        self._backlog.note(worker)
        return [Member(worker.name, "in trouble", trouble.text), *self.hand_out(now)], None

    def blamed(
        self, shard: int, works: Iterable[tuple[bytes, int, str]], now: float
    ) -> tuple[list[Output], str | None]:
        """A shard could not use what came of (session, ticket), and why; told again it changes nothing. As `trouble`.

        The worker says what it does next itself: `trouble`, if it is an honest one.
        """
        outputs: list[Output] = []
        for session, ticket, code in works:
            if (worker := self._roster.clients.get(session)) is None:
                continue
            why = f"shard {shard + 1} refused its gradient: {code}"
            is_new, failure = self._in_trouble(worker, ticket, why)
            if failure is not None:
                return [], failure
            if is_new:
                outputs.append(Member(worker.name, "in trouble", why))
        return outputs + self.hand_out(now) if outputs else [], None

    def closed(self, works: Iterable[StepWork]) -> list[Output]:
        """Steps that every shard has applied: who did them, and in whose place. Puts out whom others do the work of."""
        outputs: list[Output] = []
        for work in works:
            failed = self._troubles.pop(work.step, {})
            done = {lease.session for lease in work.leases.values()} if failed or self._strikes else set()
            for session in sorted(failed.keys() | self._strikes.keys()):
                worker = self._roster.clients.get(session)
                if worker is None or session in done:
                    self._strikes.pop(session, None)
                elif session in failed:
                    self._strikes[session] = self._strikes.get(session, 0) + 1
                    if self._strikes[session] >= _MOST_STRIKES:
                        outputs += self._put_out(worker)
        return outputs

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
        backed = self._backlog.back_up(self._roster.workers, now)
        return outputs + [Send(worker.sender, self._work(lease)) for worker, lease in backed]

    def _in_trouble(self, worker: Client, ticket: int, text: str) -> tuple[bool, str | None]:
        """Whether that is news, and why the run fails, if it does."""
        step = self._backlog.refused(worker, ticket)
        if step is None:
            return False, None
        worker.refused += 1
        failed = self._troubles.setdefault(step, {})
        failed.setdefault(worker.session, set()).add(ticket)
        failing = sum(client.session in failed for client in self._roster.workers)
        others = sum(client.session not in failed for client in self._backlog.crew)
        attempts = sum(map(len, failed.values()))
        is_hopeless = attempts > 1 and failing > others
        return True, f"{worker.name}: {text}" if is_hopeless else None

    def _put_out(self, worker: Client) -> list[Output]:
        why = f"{_MOST_STRIKES} pieces of its work in a row could not be used, and others did them"
        text = f"{worker.name} is put out: {why}; look at its processor, memory and data before you start it again"
        self._backlog.lost(worker)
        self._roster.put_out(worker, text)
        return [Send(worker.sender, Error("put-out", text)), Member(worker.name, "put out", why)]

    def _give(self, worker: Client, now: float) -> list[Output]:
        if not worker.idle or not self.is_open:
            return []
        lease = self._backlog.next_work(worker, now)
        return [] if lease is None else [Send(worker.sender, self._work(lease))]

    def _work(self, lease: Lease) -> Work:
        """What a lease is to its worker; the same each time."""
        secret, blocks = self._backlog.rules.secret, lease.blocks
        words = lease.session, lease.ticket, lease.step
        permits = tuple(permit(secret, *words, block) for block in blocks) if secret else ()
        return Work(lease.ticket, lease.step, tuple((block.start, block.stop) for block in blocks), permits)
