"""Learning rates and the weight of the KL term, step by step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps_vae.errors import UsageError
from ps_vae.optim.schedules import beta_at, schedule, stage_starts


def test_constant_is_the_rate_at_every_step() -> None:
    plan = schedule("constant", rate=1e-3, steps=10)

    assert {plan.rate_at(step) for step in range(20)} == {1e-3}


def test_cosine_falls_from_the_rate_through_the_half_to_the_final_fraction() -> None:
    plan = schedule("cosine:0.02", rate=1e-3, steps=1000)

    assert plan.rate_at(0) == 1e-3
    assert plan.rate_at(500) == pytest.approx(1e-3 * (1 + 0.02) / 2, rel=1e-12)
    assert plan.rate_at(1000) == pytest.approx(2e-5, rel=1e-12)
    assert plan.rate_at(5000) == plan.rate_at(1000)


@given(step=st.integers(0, 999))
def test_cosine_follows_the_formula_of_loshchilov_and_hutter(step: int) -> None:
    low, high = 0.1 * 0.3, 0.3
    expected = low + 0.5 * (high - low) * (1 + math.cos(step / 1000 * math.pi))

    assert schedule("cosine:0.1", rate=0.3, steps=1000).rate_at(step) == pytest.approx(expected, rel=1e-12)


def test_warm_up_grows_linearly_and_never_wastes_a_step_at_rate_zero() -> None:
    plan = schedule("cosine:0:4", rate=1.0, steps=10)

    rates = [plan.rate_at(step) for step in range(11)]

    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-12)
    np.testing.assert_allclose(rates[7], 0.5, rtol=1e-12)
    np.testing.assert_allclose(rates[10], 0.0, atol=1e-12)


def test_the_eight_stages_of_iwae_are_3280_epochs_at_the_published_rates() -> None:
    # the paper: stage i = 1..8 runs 3^(i-1) epochs at 1e-4 * 10^(1 - (i-1)/7)
    expected = [1e-4 * 10 ** (1 - (i - 1) / 7) for i in range(1, 9) for _ in range(3 ** (i - 1))]
    assert len(expected) == 3280
    steps_in_an_epoch = 7
    plan = schedule("stages", rate=1e-3, steps=3280 * steps_in_an_epoch)

    first = [plan.rate_at(epoch * steps_in_an_epoch) for epoch in range(3280)]
    last = [plan.rate_at((epoch + 1) * steps_in_an_epoch - 1) for epoch in range(3280)]

    np.testing.assert_allclose(first, expected, rtol=1e-12)
    np.testing.assert_allclose(last, expected, rtol=1e-12)
    assert plan.rate_at(3280 * steps_in_an_epoch) == last[-1]


@given(steps=st.integers(1, 10**12))
def test_stages_keep_their_proportions_in_a_run_of_any_length(steps: int) -> None:
    starts = stage_starts(steps)

    assert starts[0] == 0
    for start, parts in zip(starts, [0, 1, 4, 13, 40, 121, 364, 1093], strict=True):
        assert steps * parts <= start * 3280 < steps * parts + 3280


@given(word=st.sampled_from(["constant", "cosine", "cosine:0.5:3", "stages"]), steps=st.integers(4, 200))
def test_a_rate_is_positive_in_the_run_and_never_above_the_given_one(word: str, steps: int) -> None:
    plan = schedule(word, rate=0.7, steps=steps)

    assert all(0.0 < plan.rate_at(step) <= 0.7 for step in range(steps))


def test_beta_grows_linearly_to_its_value_and_stays_there() -> None:
    got = [beta_at(step, beta=0.5, warmup_steps=4) for step in range(7)]

    assert got == [0.0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5]


def test_beta_without_warm_up_is_beta_at_once() -> None:
    assert beta_at(0, beta=4.0, warmup_steps=0) == 4.0


@pytest.mark.parametrize(
    ("word", "rate", "steps", "words"),
    [
        ("linear", 1e-3, 10, "'linear'; choose one of constant, cosine, .*stages"),
        ("", 1e-3, 10, "choose one of"),
        ("constant:3", 1e-3, 10, "too many parts"),
        ("cosine:0.1:2:3", 1e-3, 10, "too many parts"),
        ("cosine:low", 1e-3, 10, "could not convert.*write it like cosine:0.02:500"),
        ("cosine:0.1:2.5", 1e-3, 10, "write it like cosine:0.02:500"),
        ("cosine:1.5", 1e-3, 10, "final fraction is 1.5"),
        ("cosine:nan", 1e-3, 10, "final fraction is nan"),
        ("cosine:0:10", 1e-3, 10, "10 warm-up steps do not fit into a run of 10 steps"),
        ("constant", 0.0, 10, "learning rate is 0.0"),
        ("constant", math.inf, 10, "learning rate is inf"),
        ("constant", 1e-3, 0, "0 steps"),
    ],
)
def test_words_that_are_off_are_refused_and_named(word: str, rate: float, steps: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        schedule(word, rate=rate, steps=steps)
