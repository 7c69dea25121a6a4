"""A worker's side: what it repeats, ignores and gives up."""

import dataclasses

import numpy as np
import pytest

from ps_vae.errors import RefusedError
from ps_vae.ps.actions import Compute, Joined, Result, ShardsMoved, Spent, Stopped, Store, StoreWords
from ps_vae.ps.blocks import Block
from ps_vae.ps.messages import PROTOCOL, Bye, Error, Hello, Pull, Push, Ready, Stop, Trouble, Weights, Welcome, Work
from ps_vae.ps.outbox import COORDINATOR, Send, ShardAddress
from ps_vae.ps.worker import Worker

SESSION, RUN = b"s" * 16, b"r" * 16
WELCOME = Welcome(SESSION, RUN, b"{}", (("a", 0, 16), ("b", 16, 48)), 4, 100, 0, 0, 0, 0, 0)


def weights(shard, version):
    return Weights(version, False, None, (np.full((16, 32)[shard], version, np.float32),))


def idle_worker(bound=0):
    worker = Worker(SESSION, "w", "f")
    worker.start(0.0)
    welcome = Welcome(SESSION, RUN, b"{}", WELCOME.shards, 4, 100, bound, 0, 0, 0, 0)
    assert worker.handle(None, welcome, 0.0) == [Joined(welcome)]
    assert worker.prepared(0.0) == [Send(COORDINATOR, Ready(SESSION, 0, 0, 0, 0, 0))]
    return worker


def computing_worker(ticket=1, step=0):
    worker = idle_worker()
    worker.handle(None, Work(ticket, step, ((0, 2),)), 0.0)
    worker.handle(0, weights(0, step), 0.0)
    actions = worker.handle(1, weights(1, step), 0.0)
    assert actions[-1] == Compute(step, (Block(0, 2),))
    return worker


def finish(worker, now=0.0):
    result = Result(Block(0, 2), np.arange(48, dtype=np.float32), (1.0,))
    return worker.computed([result], Spent(1000), now)


def messages(actions):
    return [action.message for action in actions if isinstance(action, Send)]


def test_hello_is_repeated_every_second_until_it_is_answered():
    worker = Worker(SESSION, "w", "f")
    hello = [Send(COORDINATOR, Hello(PROTOCOL, SESSION, "worker", "w", "f"))]

    assert worker.start(0.0) == hello
    assert worker.tick(0.9) == []
    assert worker.tick(1.0) == hello
    assert worker.tick(1.5) == []
    worker.handle(None, WELCOME, 1.6)
    assert worker.tick(5.0) == []


def test_ready_is_repeated_every_second_until_there_is_work():
    worker = idle_worker()

    assert worker.tick(0.9) == []
    assert worker.tick(1.0) == [Send(COORDINATOR, Ready(SESSION, 0, 0, 0, 0, 0))]


def test_pulls_are_repeated_to_the_shards_that_have_not_answered_and_ready_with_them():
    worker = idle_worker()
    pulls = worker.handle(None, Work(1, 0, ((0, 2),)), 0.0)
    assert pulls == [Send(ShardAddress(shard), Pull(RUN, shard, (0, 0), False)) for shard in (0, 1)]
    (store,) = worker.handle(0, weights(0, 0), 0.1)
    assert (store.start, store.weights.size) == (0, 16)

    assert worker.tick(1.0) == [
        Send(COORDINATOR, Ready(SESSION, 0, 0, 0, 0, 0)),
        Send(ShardAddress(1), Pull(RUN, 1, (0, 0), False)),
    ]


def test_each_shard_gets_its_slice_and_the_last_push_asks_for_the_next_weights():
    worker = computing_worker(step=5)

    actions = finish(worker)

    ready, first, second = messages(actions)
    assert [action.to for action in actions] == [COORDINATOR, ShardAddress(0), ShardAddress(1)]
    assert (first.step, first.start, first.stop, first.version, first.then) == (5, 0, 2, 5, (6, 6))
    assert (first.payload[0].tolist(), second.payload[0].tolist()) == (list(range(16)), list(range(16, 48)))
    assert ready == Ready(SESSION, 1, 1000, 0, 0, 0)


def test_of_several_blocks_only_the_last_asks_for_weights():
    worker = computing_worker()
    results = [Result(Block(i, i + 1), np.zeros(48, np.float32), ()) for i in (0, 1)]

    pushes = [m for m in messages(worker.computed(results, Spent(1), 0.0)) if isinstance(m, Push)]

    assert [push.then for push in pushes] == [None, (1, 1)] * 2


@pytest.mark.parametrize("ticket", [1, 0])
def test_a_repeated_ticket_is_ignored(ticket):
    worker = computing_worker(ticket=1)
    finish(worker)

    assert worker.handle(None, Work(ticket, 3, ((0, 4),)), 0.1) == []
    assert worker.state == "idle"


def test_a_newer_ticket_takes_the_place_of_work_that_waits_for_weights():
    worker = idle_worker()
    worker.handle(None, Work(1, 3, ((0, 2),)), 0.0)

    pulls = [Pull(RUN, shard, (2, 2), False) for shard in (0, 1)]
    assert messages(worker.handle(None, Work(2, 2, ((2, 4),)), 0.0)) == pulls


def test_weights_that_were_not_asked_for_are_ignored():
    worker = computing_worker()
    finish(worker)

    assert worker.handle(0, weights(0, 7), 0.0) == []
    assert worker.handle(0, weights(0, 1), 0.0)[0].start == 0
    assert worker.handle(0, weights(0, 1), 0.0) == []


def test_weights_that_came_twice_are_stored_once():
    worker = idle_worker()
    worker.handle(None, Work(1, 0, ((0, 2),)), 0.0)

    assert isinstance(worker.handle(0, weights(0, 0), 0.0)[0], Store)
    assert worker.handle(0, weights(0, 0), 0.0) == []


def test_newer_weights_of_the_same_version_are_taken_where_pushes_are_applied_on_arrival():
    worker = idle_worker(bound=None)
    seen = []
    for step in range(3):
        worker.handle(None, Work(1 + step, step, ((0, 2),)), 0.0)
        for shard in (0, 1):
            stores = [a for a in worker.handle(shard, weights(shard, 0), 0.0) if isinstance(a, Store)]
            seen += [(step, shard) for _ in stores]
        finish(worker)

    assert seen == [(step, shard) for step in range(3) for shard in (0, 1)]


def test_a_place_in_memory_that_the_server_no_longer_shares_is_as_good_as_lost():
    worker = computing_worker()
    finish(worker)

    assert worker.handle(None, Error("not-shared", "of a sharing that is over"), 0.0) == []
    assert worker.state == "idle"


def test_work_whose_weights_are_gone_is_abandoned_and_reported_as_done_in_no_time():
    worker = idle_worker()
    worker.handle(None, Work(4, 2, ((0, 2),)), 0.0)

    assert messages(worker.handle(1, Error("gone", ""), 0.5)) == [Ready(SESSION, 4, 0, 0, 0, 0)]
    assert worker.state == "idle"


def test_reissued_work_does_not_wait_for_weights_that_need_it():
    """Under ssp the answer to the last push may depend on the very step that was lost."""
    worker = idle_worker(bound=1)
    worker.handle(None, Work(1, 1, ((0, 2),)), 0.0)
    for shard in (0, 1):
        worker.handle(shard, weights(shard, 0), 0.0)
    finish(worker)  # asks for version 1 or newer, which needs step 0

    assert worker.handle(None, Work(2, 0, ((2, 4),)), 0.0) == [Compute(0, (Block(2, 4),))]


def test_a_coordinator_that_does_not_know_us_hears_hello_again():
    for code in ("unknown-session", "wrong-run"):
        worker = computing_worker()
        finish(worker)
        assert isinstance(messages(worker.handle(None, Error(code, ""), 0.1))[0], Hello)
        assert worker.handle(None, Error(code, ""), 0.1) == []
        assert messages(worker.tick(1.1)) == [Hello(PROTOCOL, SESSION, "worker", "w", "f")]


def welcomed_again(worker, **changes):
    worker.handle(None, Error("unknown-session", ""), 0.1)
    return worker.handle(None, dataclasses.replace(WELCOME, **changes), 0.2)


def test_who_is_welcomed_to_the_same_run_again_is_ready_at_once_where_the_shards_are_now():
    worker = computing_worker(ticket=9)
    finish(worker)

    shards = (("c", 0, 16), ("", 16, 48))
    actions = welcomed_again(worker, shards=shards, moves=3)

    assert actions == [ShardsMoved(("c", "")), Send(COORDINATOR, Ready(SESSION, 0, 0, 0, 0, 3))]


def test_weights_that_are_held_are_kept_through_a_second_welcome_to_the_same_run():
    worker = computing_worker()
    finish(worker)
    welcomed_again(worker)

    assert worker.handle(None, Work(1, 0, ((0, 2),)), 0.3) == [Compute(0, (Block(0, 2),))]


def test_tickets_begin_anew_with_a_second_welcome():
    """It may be another coordinator's first."""
    worker = computing_worker(ticket=9)
    finish(worker)
    assert worker.handle(None, Work(1, 0, ((2, 4),)), 0.1) == []
    welcomed_again(worker)

    assert worker.handle(None, Work(1, 0, ((2, 4),)), 0.3) == [Compute(0, (Block(2, 4),))]


def test_what_was_asked_for_before_a_second_welcome_is_asked_for_again():
    worker = computing_worker()
    finish(worker)
    welcomed_again(worker)

    # The push of before wanted version 1, and it may have gone to a server that is no more.
    pulls = [Pull(RUN, shard, (1, 1), False) for shard in (0, 1)]
    assert messages(worker.handle(None, Work(1, 1, ((0, 2),)), 0.3)) == pulls
    assert [type(action) for action in worker.handle(0, weights(0, 1), 0.4)] == [Store]
    assert worker.handle(1, weights(1, 1), 0.4)[-1] == Compute(1, (Block(0, 2),))


def test_work_that_waited_for_weights_is_forgotten_with_a_second_welcome():
    worker = idle_worker()
    worker.handle(None, Work(7, 3, ((0, 2),)), 0.0)

    welcomed_again(worker)

    assert worker.handle(0, weights(0, 3), 0.3) == []
    assert messages(worker.tick(1.3)) == [Ready(SESSION, 0, 0, 0, 0, 0)]


def test_with_another_run_all_begins_anew():
    worker = computing_worker(ticket=9)
    finish(worker)
    other = b"another run".ljust(16)

    assert welcomed_again(worker, run=other) == [Joined(dataclasses.replace(WELCOME, run=other))]
    assert worker.tick(5.0) == []
    worker.prepared(5.0)
    # It holds nothing of this run.
    pulls = [Pull(other, shard, (0, 0), False) for shard in (0, 1)]
    assert messages(worker.handle(None, Work(1, 0, ((0, 2),)), 5.1)) == pulls


def test_who_was_welcomed_and_had_not_prepared_everything_yet_prepares_first():
    """The word that it is not known comes for its first `ready`, when all is prepared; before that nothing is said."""
    worker = Worker(SESSION, "w", "f")
    worker.start(0.0)
    worker.handle(None, WELCOME, 0.0)

    assert welcomed_again(worker) == []
    assert worker.state == "warming"


def test_an_answer_to_a_greeting_that_comes_late_does_not_start_us_again():
    worker = computing_worker()
    finish(worker)

    assert worker.handle(None, WELCOME, 0.1) == []
    assert worker.state == "idle"


def test_why_we_wait_is_known():
    worker = Worker(SESSION, "w", "f")
    worker.start(0.0)

    assert worker.handle(None, Error("starting", "the run waits for shard 2 of 2"), 0.1) == []
    assert worker.waits_because == "the run waits for shard 2 of 2"


def test_a_gradient_that_a_shard_refused_is_trouble():
    worker = computing_worker(ticket=9)
    finish(worker)

    assert messages(worker.handle(1, Error("not-finite", "nan at 3"), 0.1)) == [Trouble(SESSION, 9, "nan at 3")]


def test_work_that_cannot_be_done_is_trouble_and_we_are_idle():
    worker = computing_worker(ticket=9)

    assert messages(worker.failed("x" * 5000, 0.1)) == [Trouble(SESSION, 9, "x" * 2048)]
    assert messages(worker.tick(1.2)) == [Ready(SESSION, 0, 0, 0, 0, 0)]


@pytest.mark.parametrize("code", ["protocol", "fingerprint", "bad-block", "malformed", "something-new"])
def test_a_refusal_that_would_be_repeated_is_raised(code):
    worker = idle_worker()

    with pytest.raises(RefusedError) as refusal:
        worker.handle(None, Error(code, "why"), 0.0)
    assert refusal.value.code == code


def test_a_slice_of_another_size_is_refused_by_us():
    worker = idle_worker()
    worker.handle(None, Work(1, 0, ((0, 2),)), 0.0)

    with pytest.raises(RefusedError, match=r"shard 2 sent \[16\] numbers, its slice has 32"):
        worker.handle(1, weights(0, 0), 0.0)


def test_after_stop_nothing_is_done_any_more():
    worker = computing_worker()
    finish(worker)

    assert worker.handle(None, Stop(False, "done"), 0.1) == [Stopped(False, "done")]
    assert worker.handle(None, Error("unknown-session", ""), 0.1) == []
    assert worker.handle(None, Work(7, 1, ((0, 2),)), 0.1) == []
    assert worker.tick(9.0) == []


def test_one_that_leaves_says_so():
    worker = idle_worker()

    assert messages(worker.leave()) == [Bye(SESSION)]
    assert worker.tick(9.0) == []


def test_weights_before_the_welcome_are_ignored():
    worker = Worker(SESSION, "w", "f")
    worker.start(0.0)

    assert worker.handle(0, weights(0, 0), 0.0) == []


def test_a_change_of_weights_that_a_worker_does_not_hold_makes_it_ask_for_all_of_them():
    worker = idle_worker()
    worker.handle(None, Work(1, 5, ((0, 2),)), 0.0)
    change = Weights(5, True, 4, (np.zeros(3, np.float32),))

    assert messages(worker.handle(0, change, 0.1)) == [Pull(RUN, 0, (5, 5), False)]


def test_words_for_the_weights_that_a_worker_holds_are_decoded():
    worker = computing_worker()
    finish(worker)
    words = np.zeros(3, np.float32)

    assert worker.handle(0, Weights(1, True, 0, (words,)), 0.0) == [StoreWords(0, words, True)]
    assert worker.handle(1, Weights(1, True, None, (words,)), 0.0) == [StoreWords(1, words, False)]


def test_words_that_come_twice_are_added_once():
    worker = computing_worker()
    finish(worker)
    change = Weights(1, True, 0, (np.zeros(3, np.float32),))
    worker.handle(0, change, 0.0)

    assert worker.handle(0, change, 0.0) == []
