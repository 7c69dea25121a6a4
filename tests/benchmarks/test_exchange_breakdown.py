"""Where an exchange's time goes, from stamps."""

import pytest
from exchange.breakdown import PARTS, Exchange, Parts, handled, split, typical

US = 1_000


def exchange(step: int = 5, starts: tuple[int, ...] = (0,), ended: int = 1000) -> Exchange:
    return Exchange(step, starts, 0, 100 * US, 130 * US, ended * US)


def test_one_worker_on_one_shard_waits_for_nobody() -> None:
    shard = handled([[5, 0, 200 * US, 450 * US, True]])

    parts = split(exchange(), [shard])

    assert parts is not None
    expected = {"compute": 100e-6, "encode": 30e-6, "wire": 620e-6, "wait": 0.0, "apply": 250e-6}
    assert {name: getattr(parts, name) for name in PARTS} == pytest.approx(expected)


def test_a_worker_waits_from_when_its_push_is_done_with_until_the_last_one_comes() -> None:
    shard = handled([[5, 0, 200 * US, 250 * US, False], [5, 1, 400 * US, 600 * US, True]])

    first, last = split(exchange(), [shard]), split(exchange(starts=(1,)), [shard])

    assert first is not None
    assert last is not None
    assert (first.wait, first.apply) == pytest.approx((150e-6, 250e-6))
    assert (last.wait, last.apply) == pytest.approx((0.0, 200e-6))


def test_of_several_shards_the_one_that_is_done_last_counts() -> None:
    quick = handled([[5, 0, 150 * US, 160 * US, True]])
    slow = handled([[5, 0, 300 * US, 700 * US, True]])

    both = split(exchange(), [quick, slow])

    assert both == split(exchange(), [slow])
    assert both != split(exchange(), [quick])


@pytest.mark.parametrize("ended", [800, 1000, 5000])
def test_the_parts_add_up_to_the_exchange(ended: int) -> None:
    shard = handled(
        [[5, 2, 110 * US, 250 * US, False], [5, 0, 300 * US, 350 * US, False], [5, 1, 400 * US, 600 * US, True]]
    )

    parts = split(exchange(starts=(0, 2), ended=ended), [shard])

    assert parts is not None
    assert parts.total == pytest.approx(ended * 1e-6)


def test_what_the_other_side_has_already_read_is_encoded() -> None:
    """In shared memory the server may have the push before the worker's call that sent it returns."""
    shard = handled([[5, 0, 110 * US, 450 * US, True]])

    parts = split(exchange(), [shard])

    assert parts is not None
    assert parts.encode == pytest.approx(10e-6)


def test_an_exchange_whose_push_did_not_complete_its_step_has_no_parts() -> None:
    assert split(exchange(), [handled([[5, 0, 200 * US, 450 * US, False]])]) is None
    assert split(exchange(), [handled([[4, 0, 200 * US, 450 * US, True]])]) is None
    assert split(exchange(), [handled([[5, 0, 200 * US, 450 * US, True]]), {}]) is None


def test_a_typical_exchange_is_the_mean_of_the_middle_half() -> None:
    exchanges = [Parts(total, 2.0, 0.0, 0.0, 1.0) for total in (100.0, 3.0, 1.0, 4.0, 6.0, 5.0, 0.0, -900.0)]

    assert typical(exchanges) == Parts((1.0 + 3.0 + 4.0 + 5.0) / 4, 2.0, 0.0, 0.0, 1.0)
    assert typical(exchanges[:1]) == exchanges[0]
    assert typical([]) is None
