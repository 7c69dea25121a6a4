"""Handing out work: fair, complete, each microbatch to one worker at a time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.ps.aggregation.table import aggregation_for
from ps_vae.ps.backlog import LEASE_SECONDS, Backlog
from ps_vae.ps.blocks import is_block
from ps_vae.ps.consistency import parse_consistency
from ps_vae.ps.members import Client
from ps_vae.ps.rules import ASYNCHRONOUS_WINDOW, RunRules
from ps_vae.ps.work import fair_share

speeds = st.floats(0.01, 100)


@given(st.integers(1, 200), speeds, speeds | st.just(0.0))
def test_a_fair_share_ends_soonest(left, speed, others):
    def seconds(share):
        rest = left - share
        return max(share / speed, rest / others if others else (float("inf") if rest else 0.0))

    share = fair_share(left, speed, others)

    assert 0 <= share <= left
    assert seconds(share) == pytest.approx(min(seconds(one) for one in range(left + 1)), rel=1e-12)


def backlog(consistency="bsp", *, microbatches=8, steps=1000, milestone=100, lowest=0, backup_workers=0):
    rules = RunRules(b"r" * 16, microbatches, steps, parse_consistency(consistency), milestone, metrics=2)
    return Backlog(rules, lowest, backup_workers)


def client(name, pace=None):
    session = name.encode().ljust(16)
    return Client(session, name, name, "worker", 0.0, idle=True, pace=pace)


def give(log, worker, active, now):
    """What a worker is given where these are active."""
    for peer in active:
        log.note(peer)
    return log.next_work(worker, now)


def size(lease):
    return 0 if lease is None else lease.microbatches


def test_shares_are_in_proportion_to_speed():
    log = backlog()
    workers = [client("fast", 0.1), client("slow", 0.3)]

    assert [size(give(log, worker, workers, 0.0)) for worker in workers] == [6, 2]


@pytest.mark.parametrize("count", [3, 5, 16, 17])
def test_where_a_step_takes_a_median_shares_are_equal_whatever_workers_say_of_their_speed(count):
    rules = RunRules(
        b"r" * 16,
        count,
        9,
        parse_consistency("bsp"),
        9,
        metrics=2,
        aggregation=aggregation_for("median"),
        secret=b"k" * 16,
    )
    log, workers = Backlog(rules, 0), [client("liar", pace=1e-9), client("slow", pace=5.0), client("new")]
    for worker in workers:
        log.note(worker)

    sizes = [log.next_work(worker, 0.0).microbatches for worker in workers]

    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1


def test_a_worker_of_unknown_speed_gets_the_usual_share():
    log = backlog()
    workers = [client("a", 0.1), client("new"), client("c", 0.1), client("d", 0.1)]

    assert [size(give(log, worker, workers, 0.0)) for worker in workers] == [2, 2, 2, 2]


def test_a_hopelessly_slow_worker_has_no_share_and_is_given_a_chance_later():
    log = backlog()
    workers = [client("fast", 0.001), client("slow", 10.0)]
    pace = workers[1].pace

    assert size(give(log, workers[1], workers, 0.0)) == 0
    assert size(give(log, workers[0], workers, 0.0)) == 8
    assert workers[1].pace < pace


def test_a_step_is_handed_out_ahead_but_no_further():
    log = backlog()
    workers = [client("only", 0.1)]
    steps = []
    for _ in range(3):
        lease = give(log, workers[0], workers, 0.0)
        steps.append(None if lease is None else (lease.step, lease.deadline is None))
        log.delivered(workers[0], 0.0)
        workers[0].idle = True

    assert steps == [(0, False), (1, True), None]


def test_however_slow_a_worker_says_it_is_its_lease_ends_within_an_hour():
    log, worker = backlog(), client("slow", pace=2.0**63)

    lease = give(log, worker, [worker], now=5.0)

    assert (lease.seconds, lease.deadline) == (3600.0, 3605.0)


def test_a_lease_given_ahead_begins_when_its_weights_are_there():
    log = backlog()
    workers = [client("only", 0.1)]
    give(log, workers[0], workers, 0.0)
    log.delivered(workers[0], 0.0)
    workers[0].idle = True
    lease = give(log, workers[0], workers, 0.0)
    assert log.overdue(1e9) == []

    log.advance(1, [], 100.0)

    assert lease.deadline == 100.0 + lease.seconds
    assert log.overdue(lease.deadline) == []
    assert log.overdue(lease.deadline + 0.1) == [lease]


def test_lost_work_is_done_before_anything_else():
    log = backlog()
    a, b = client("a", 0.1), client("b", 0.1)
    give(log, a, [a, b], 0.0)
    lost = give(log, b, [a, b], 0.0)
    log.lost(b)
    log.delivered(a, 0.0)
    a.idle = True

    assert give(log, a, [a], 0.0).blocks == lost.blocks


def test_the_share_of_a_worker_that_left_before_it_came_for_it_is_anyones():
    log = backlog()
    a, b = client("a", 0.1), client("b", 0.1)
    first = give(log, a, [a, b], 0.0)
    log.lost(b)
    log.delivered(a, 0.0)
    a.idle = True

    assert size(first) + size(give(log, a, [a], 0.0)) == 8


def test_work_given_ahead_is_taken_back_where_lost_work_waits_and_nobody_is_idle():
    log = backlog()
    a, b = client("a", 0.1), client("b", 0.1)
    give(log, a, [a, b], 0.0)
    lost = give(log, b, [a, b], 0.0)
    log.delivered(a, 0.0)
    a.idle = True
    assert give(log, a, [a, b], 0.0).step == 1
    log.lost(b)

    assert log.recall(a)
    assert give(log, a, [a], 0.0).blocks == lost.blocks
    assert not log.recall(a)


def test_a_slow_worker_does_not_take_all_lost_work_while_others_only_wait_for_weights():
    log = backlog()
    fast, slow, gone = client("fast", 0.01), client("slow", 1.0), client("gone", 0.01)
    everybody = [fast, slow, gone]
    give(log, gone, everybody, 0.0)
    give(log, fast, everybody, 0.0)
    log.delivered(fast, 0.0)
    fast.idle = True
    assert give(log, fast, everybody, 0.0).step == 1
    log.lost(gone)

    assert size(give(log, slow, [fast, slow], 0.0)) == 1


def test_a_step_whose_pushes_do_not_arrive_is_handed_out_anew_ever_more_patiently():
    log = backlog(microbatches=1)
    worker = client("w", 0.1)
    now, waits = 0.0, []
    for _ in range(9):
        worker.idle = True
        assert give(log, worker, [worker], now).step == 0
        log.delivered(worker, now)
        since = now
        while log.steps[0].leases:
            now += 0.25
            log.reissue_undelivered(now)
        waits.append(now - since)

    assert waits == [LEASE_SECONDS * 2**n + 0.25 for n in (0, 1, 2, 3, 4, 5, 6, 6, 6)]


def test_under_asp_whoever_is_free_gets_a_share_of_the_first_step_that_has_some_left_up_to_the_milestone():
    log = backlog("asp", milestone=2)
    workers = [client(name, 0.1) for name in "abcd"]

    leases = [give(log, worker, workers, 0.0) for worker in workers]
    assert {lease.step for lease in leases} == {0}

    # One of them does not come back; the others go on without it until the milestone.
    waiting = 0
    while waiting < 3:
        for worker in workers[1:]:
            log.delivered(worker, 0.0)
            worker.idle = True
            lease = give(log, worker, workers, 0.0)
            waiting = waiting + 1 if lease is None else 0
            leases += [] if lease is None else [lease]
    assert {lease.step for lease in leases} == {0, 1}
    assert sum(size(lease) for lease in leases) == 16

    log.lost(workers[0])
    again = give(log, workers[1], workers, 0.0)
    assert (again.step, again.blocks[0].start) == (0, leases[0].blocks[0].start)
    log.advance(2, [], 0.0)
    workers[2].idle = True
    assert give(log, workers[2], workers, 0.0).step == 2


def test_under_asp_work_is_at_most_a_window_ahead_of_the_first_unapplied_step():
    log = backlog("asp", microbatches=1, steps=10**6, milestone=10**6)
    stuck, worker = client("stuck", 0.1), client("w", 0.1)
    give(log, stuck, [stuck, worker], 0.0)
    steps = []
    while (lease := give(log, worker, [stuck, worker], 0.0)) is not None:
        steps.append(lease.step)
        log.delivered(worker, 0.0)
        worker.idle = True
        log.advance(0, [lease.step], 0.0)

    assert steps == list(range(1, ASYNCHRONOUS_WINDOW))


def test_after_stop_no_step_is_opened_and_open_ones_are_finished():
    log = backlog("ssp:3", microbatches=2)
    a, b = client("a", 0.1), client("b", 0.1)
    give(log, a, [a, b], 0.0)

    assert log.stop_opening() == 1
    assert give(log, b, [a, b], 0.0).step == 0
    log.delivered(a, 0.0)
    a.idle = True
    assert give(log, a, [a, b], 0.0) is None


def test_trouble_with_anothers_ticket_is_ignored():
    log = backlog()
    a, b = client("a", 0.1), client("b", 0.1)
    lease = give(log, a, [a, b], 0.0)

    assert log.refused(b, lease.ticket) is None
    assert log.lease_of(a) is not None
    assert log.refused(a, lease.ticket) == 0
    assert a.lease is None


class Misadventure:
    """Any sequence of what may happen to a backlog, with a record of who was given what."""

    def __init__(self, draw, consistency, microbatches, backup_workers):
        self.draw = draw
        self.log = backlog(consistency, microbatches=microbatches, steps=12, milestone=5, backup_workers=backup_workers)
        self.workers = []
        self.now = 0.0
        self.done = {}
        self.names = 0

    def run(self):
        for _ in range(self.draw(st.integers(5, 60))):
            self.now += self.draw(st.sampled_from([0.0, 0.1, 3.0]))
            getattr(
                self, self.draw(st.sampled_from(["join", "take", "take", "finish", "finish", "lose", "tick", "apply"]))
            )()
            self.check()
        self.finish_everything()

    def join(self):
        self.names += 1
        self.workers.append(client(f"w{self.names}", self.draw(st.sampled_from([None, 0.01, 0.1, 5.0]))))

    def take(self, worker=None):
        idle = [worker for worker in self.workers if worker.idle]
        if idle or worker:
            worker = worker or self.draw(st.sampled_from(idle))
            lease = give(self.log, worker, [w for w in self.workers if w.is_active], self.now)
            assert lease is None or all(is_block(block, self.log.rules.microbatches) for block in lease.blocks)
            return lease
        return None

    def finish(self):
        busy = [worker for worker in self.workers if worker.lease is not None]
        if busy:
            self.deliver(self.draw(st.sampled_from(busy)))

    def deliver(self, worker):
        found = self.log.lease_of(worker)
        if found is not None:
            work, lease = found
            if (
                work.step > self.log.lowest + (self.log.rules.consistency.bound or 0)
                and self.log.rules.consistency.bound is not None
            ):
                return
            for block in lease.blocks:
                self.done.setdefault(work.step, set()).update(range(block.start, block.stop))
        self.log.delivered(worker, self.now)
        worker.idle = True

    def lose(self):
        if self.workers:
            worker = self.draw(st.sampled_from(self.workers))
            self.log.lost(worker)
            worker.idle = False
            if self.draw(st.booleans()):
                self.workers.remove(worker)
            else:
                worker.idle = True

    def tick(self):
        for lease in self.log.overdue(self.now):
            for worker in self.workers:
                if worker.lease == lease.ticket:
                    self.log.lost(worker)
                    worker.idle = True
        for worker in self.workers:
            if self.log.recall(worker):
                self.take(worker)
        self.log.back_up(self.workers, self.now)
        assert sum(worker.outpaced for worker in self.workers) <= self.log.backup_workers

    def apply(self):
        whole = [step for step, parts in self.done.items() if len(parts) == self.log.rules.microbatches]
        lowest = self.log.lowest
        while lowest in whole:
            lowest += 1
        beyond = [] if self.log.rules.consistency.is_synchronous else [s for s in whole if s in self.log.steps]
        self.log.advance(lowest, beyond, self.now)

    def finish_everything(self):
        """With one worker that nothing happens to, all steps come to their end."""
        for worker in self.workers:
            self.log.lost(worker)
        self.workers = [client("last", 0.01)]
        for _ in range(500):
            if self.log.lowest == self.log.rules.steps:
                return
            self.take(self.workers[0]) if self.workers[0].idle else self.deliver(self.workers[0])
            self.now += 1.0
            self.apply()
            self.tick()
            self.log.reissue_undelivered(self.now)
            self.check()
        raise AssertionError(f"step {self.log.lowest} is not finished: {self.log.steps}")

    def check(self):
        for work in self.log.steps.values():
            held = [*work.pool, *(block for lease in work.leases.values() for block in lease.blocks)]
            indices = sorted(index for block in held for index in range(block.start, block.stop))
            assert indices == list(range(work.microbatches))
            backed = [work.leases[backup.backs] for backup in work.backups.values()]
            assert len(set(map(id, backed))) == len(backed)
            for lease, backup in zip(backed, work.backups.values(), strict=True):
                assert (lease.blocks, lease.delivered) == (backup.blocks, False)
        assert max(self.log.steps, default=0) < self.log.limit


@given(st.data(), st.sampled_from([("bsp", 0), ("bsp", 1), ("bsp", 2), ("ssp:2", 0), ("asp", 0)]), st.integers(1, 9))
@settings(max_examples=160, deadline=None)
def test_every_microbatch_is_with_nobody_or_one_worker_whatever_happens_and_all_are_done(
    data, consistency_and_backups, microbatches
):
    consistency, backup_workers = consistency_and_backups
    Misadventure(data.draw, consistency, microbatches, backup_workers).run()


def one_late_of_three(backup_workers=1):
    """Two of three workers have done their part of step 0 and have one of step 1; "late" ought to be done at 0.2."""
    log = backlog(backup_workers=backup_workers, microbatches=6)
    workers = [client("late", 0.1), client("slower", 0.11), client("faster", 0.1)]
    late, *others = workers
    lease = give(log, late, workers, 0.0)
    for other in others:
        give(log, other, workers, 0.0)
    for other in others:
        log.delivered(other, 0.2)
        other.idle = True
        assert give(log, other, workers, 0.2).step == 1
    return log, workers, lease


def test_late_work_is_given_to_the_fastest_that_waits_for_weights_and_to_no_other():
    log, workers, lease = one_late_of_three()
    late, slower, faster = workers

    assert log.back_up(workers, 0.29) == []
    ((helper, backup),) = log.back_up(workers, 0.31)

    assert helper is faster
    assert (backup.step, backup.blocks) == (0, lease.blocks)
    assert log.lease_of(late)[1] is lease
    assert log.lease_of(slower)[1].step == 1
    assert log.back_up(workers, 0.9) == []
    assert (log.backed_up, log.reissued) == (len(lease.blocks), 0)


def test_nobody_waits_for_a_worker_that_is_backed_until_it_is_back():
    log, workers, _ = one_late_of_three()
    late, _, faster = workers
    log.back_up(workers, 0.4)
    assert not late.is_active

    log.delivered(faster, 0.6)
    log.advance(1, [], 0.6)
    faster.idle = True
    share = give(log, faster, workers, 0.6)

    # Its own part and that of the late one.
    assert (share.step, share.microbatches) == (1, 4)
    log.delivered(late, 5.0)
    late.idle = True
    assert late.is_active


def test_no_more_workers_are_backed_than_was_said():
    log, workers, _ = one_late_of_three(backup_workers=0)

    assert log.back_up(workers, 5.0) == []


def test_whoever_is_done_first_is_done_and_the_other_is_let_finish():
    for is_first in (True, False):
        log, workers, lease = one_late_of_three()
        late, _, faster = workers
        ((_, backup),) = log.back_up(workers, 0.4)

        log.delivered(late if is_first else faster, 0.5)

        (work,) = [work for work in log.steps.values() if work.step == 0]
        assert work.settled_at == 0.5
        assert work.backups == {}
        assert sorted(work.leases)[0 if is_first else -1] == (lease if is_first else backup).ticket
        other = faster if is_first else late
        assert other.lease is not None
        log.delivered(other, 0.6)
        assert other.lease is None
        assert log.overdue(99.0) == []


def test_what_is_lost_and_backed_is_the_backups_and_does_not_go_to_a_third():
    log, workers, lease = one_late_of_three()
    ((_, backup),) = log.back_up(workers, 0.4)

    log.lost(workers[0])

    work = log.steps[0]
    assert work.leases[backup.ticket].blocks == lease.blocks
    assert (work.pool, work.backups, log.reissued) == ([], {}, 0)


def test_where_a_backup_is_lost_another_takes_its_place():
    log, workers, lease = one_late_of_three()
    _, slower, faster = workers
    log.back_up(workers, 0.4)

    log.lost(faster)
    workers.remove(faster)
    ((helper, backup),) = log.back_up(workers, 0.5)

    assert helper is slower
    assert backup.blocks == lease.blocks


def test_a_worker_of_unknown_speed_has_time_for_its_local_steps():
    rules = RunRules(b"r" * 16, 4, 10, parse_consistency("bsp"), 10, metrics=2, batches=512)
    lease = Backlog(rules, 0).next_work(client("w"), 0.0)

    assert (lease.microbatches, lease.seconds) == (4, 10.0 + 4 * 511)
