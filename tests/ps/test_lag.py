"""How stale pushes are, and what that means for them."""

import pytest

from ps_vae.ps.lag import Lag


def alternate(lag, workers, updates):
    """So many updates by workers who take turns, each with weights from just after its last push."""
    for update in range(updates):
        lag.trust_in_push(update % workers, update)
        lag.weights_sent(update % workers, update + 1)
    return updates


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_the_mean_is_the_number_of_the_others(workers):
    lag = Lag()
    alternate(lag, workers, 2_000)
    assert lag.mean == pytest.approx(workers - 1, abs=0.01)


def test_a_usual_push_counts_in_full_and_a_very_stale_one_for_little():
    lag = Lag()
    now = alternate(lag, 3, 2_001)
    lag.weights_sent("late", now - 100)
    assert lag.trust_in_push(now % 3, now) == pytest.approx(1.0, abs=0.01)
    assert lag.trust_in_push("late", now) < 0.1


def test_one_worker_that_was_held_up_hardly_moves_the_mean():
    lag = Lag()
    now = alternate(lag, 3, 2_001)
    lag.weights_sent("late", now - 1_000)
    lag.trust_in_push("late", now)
    assert lag.mean < 2.2


def test_a_sender_that_was_forgotten_or_never_served_has_no_lag():
    lag = Lag()
    lag.weights_sent("a", 0)
    lag.forget("a")
    assert lag.trust_in_push("a", 50) == lag.trust_in_push("b", 50) == 1.0


def test_of_any_number_of_readers_who_never_push_the_latest_are_remembered():
    lag = Lag()
    lag.weights_sent("honest", 0)
    for number in range(100_000):
        lag.weights_sent(number, 0)
        if number % 1000 == 0:
            lag.weights_sent("honest", number)

    assert lag.trust_in_push("honest", 100_000) < lag.trust_in_push("nobody", 100_000) == 1.0
    assert len(lag._sent_at) < 20_000
