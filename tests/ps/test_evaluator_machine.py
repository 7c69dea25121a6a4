"""An evaluator's side: one version at a time, each measured once."""

import dataclasses

import numpy as np
import pytest

from ps_vae.errors import RefusedError
from ps_vae.ps.actions import Joined, Measure, ShardsMoved, Stopped
from ps_vae.ps.evaluator import Evaluator
from ps_vae.ps.messages import Bye, Error, Hello, Milestone, Pull, Report, Stop, Weights, Welcome
from ps_vae.ps.outbox import Send

SESSION, RUN = b"s" * 16, b"r" * 16
WELCOME = Welcome(SESSION, RUN, b"{}", (("a", 0, 16), ("b", 16, 48)), 4, 100, 0, 0, 0, 0, 0)


def weights(shard, version):
    return Weights(version, False, None, (np.full((16, 32)[shard], version, np.float32),))


def watching():
    evaluator = Evaluator(SESSION, "e")
    evaluator.start(0.0)
    assert evaluator.handle(None, WELCOME, 0.0) == [Joined(WELCOME)]
    return evaluator


def messages(actions):
    return [action.message for action in actions if isinstance(action, Send)]


def measure(evaluator, version):
    evaluator.handle(None, Milestone(version, False), 0.0)
    evaluator.handle(0, weights(0, version), 0.0)
    return evaluator.handle(1, weights(1, version), 0.0)


def test_a_milestone_is_pulled_from_every_shard_then_measured_and_reported():
    evaluator = watching()

    assert messages(evaluator.handle(None, Milestone(10, False), 0.0)) == [
        Pull(RUN, shard, (10, 10), True) for shard in (0, 1)
    ]
    assert len(evaluator.handle(1, weights(1, 10), 0.0)) == 1
    assert evaluator.handle(0, weights(0, 10), 0.0)[-1] == Measure(10)
    assert messages(evaluator.measured([("elbo", -1.0)], 0.0)) == [Report(SESSION, 10, (("elbo", -1.0),), 0)]


def test_slices_of_two_versions_are_never_measured_together():
    evaluator = watching()
    evaluator.handle(None, Milestone(10, False), 0.0)
    evaluator.handle(0, weights(0, 10), 0.0)

    assert len(messages(evaluator.handle(None, Milestone(20, False), 0.0))) == 2
    assert evaluator.handle(1, weights(1, 10), 0.0) == []
    assert len(evaluator.handle(1, weights(1, 20), 0.0)) == 1
    assert evaluator.handle(0, weights(0, 20), 0.0)[-1] == Measure(20)


def test_a_milestone_that_was_measured_is_not_measured_again():
    evaluator = watching()
    measure(evaluator, 20)
    evaluator.measured([], 0.0)

    assert evaluator.handle(None, Milestone(20, False), 0.0) == []
    assert evaluator.handle(None, Milestone(10, False), 0.0) == []


def test_the_last_report_and_missing_pulls_are_repeated_every_second():
    evaluator = watching()
    assert messages(evaluator.tick(1.0)) == [Report(SESSION, None, (), 0)]
    measure(evaluator, 10)
    evaluator.measured([("elbo", -1.0)], 2.0)
    evaluator.handle(None, Milestone(20, False), 2.5)
    evaluator.handle(0, weights(0, 20), 2.5)

    assert messages(evaluator.tick(3.5)) == [Pull(RUN, 1, (20, 20), True), Report(SESSION, 10, (("elbo", -1.0),), 0)]


def test_a_milestone_that_training_has_passed_is_left_out():
    evaluator = watching()
    evaluator.handle(None, Milestone(10, False), 0.0)

    assert evaluator.handle(1, Error("gone", ""), 0.0) == []
    assert evaluator.handle(0, weights(0, 10), 0.0) == []
    assert len(messages(evaluator.handle(None, Milestone(20, False), 0.0))) == 2


def test_a_coordinator_that_does_not_know_us_hears_hello_again():
    evaluator = watching()

    assert isinstance(messages(evaluator.handle(None, Error("unknown-session", ""), 0.0))[0], Hello)
    assert isinstance(messages(evaluator.tick(1.0))[0], Hello)


def welcomed_again(evaluator, **changes):
    evaluator.handle(None, Error("unknown-session", ""), 0.0)
    return evaluator.handle(None, dataclasses.replace(WELCOME, **changes), 1.0)


def test_what_was_measured_stays_measured_when_it_is_welcomed_to_the_same_run_again():
    evaluator = watching()
    measure(evaluator, 10)
    evaluator.measured([("elbo", -1.0)], 0.0)

    assert welcomed_again(evaluator, shards=(("c", 0, 16), ("", 16, 48)), moves=3) == [ShardsMoved(("c", ""))]

    assert evaluator.handle(None, Milestone(10, False), 1.0) == []
    assert messages(evaluator.tick(2.0)) == [Report(SESSION, 10, (("elbo", -1.0),), 3)]


def test_a_milestone_that_it_was_fetching_is_fetched_anew_after_a_second_welcome():
    evaluator = watching()
    evaluator.handle(None, Milestone(10, False), 0.0)
    evaluator.handle(0, weights(0, 10), 0.0)

    welcomed_again(evaluator)

    pulls = [Pull(RUN, shard, (10, 10), True) for shard in (0, 1)]
    assert messages(evaluator.handle(None, Milestone(10, False), 1.0)) == pulls
    assert len(evaluator.handle(1, weights(1, 10), 1.0)) == 1
    assert evaluator.handle(0, weights(0, 10), 1.0)[-1] == Measure(10)


def test_with_another_run_it_begins_anew():
    evaluator = watching()
    measure(evaluator, 10)
    evaluator.measured([("elbo", -1.0)], 0.0)
    other = b"another run".ljust(16)

    assert welcomed_again(evaluator, run=other) == [Joined(dataclasses.replace(WELCOME, run=other))]
    assert messages(evaluator.tick(2.0)) == [Report(SESSION, None, (), 0)]
    assert len(messages(evaluator.handle(None, Milestone(10, False), 2.0))) == 2


def test_a_place_in_memory_that_the_server_no_longer_shares_is_as_good_as_lost():
    evaluator = watching()

    assert evaluator.handle(0, Error("not-shared", "of a sharing that is over"), 0.0) == []


def test_a_refusal_that_would_be_repeated_is_raised():
    with pytest.raises(RefusedError):
        watching().handle(None, Error("protocol", ""), 0.0)


def test_a_slice_of_another_size_is_refused_by_us():
    evaluator = watching()
    evaluator.handle(None, Milestone(10, False), 0.0)

    with pytest.raises(RefusedError, match="its slice has 32"):
        evaluator.handle(1, weights(0, 10), 0.0)


def test_it_stops_when_told_and_says_when_it_leaves():
    assert watching().handle(None, Stop(True, "why"), 0.0) == [Stopped(True, "why")]
    evaluator = watching()
    assert messages(evaluator.leave()) == [Bye(SESSION)]
    assert evaluator.tick(9.0) == []
