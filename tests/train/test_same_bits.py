"""Promise 2: however the work is distributed, whoever dies, the bits are those of one loop without any server."""

import invariance
import pytest

from ps_vae.train.plan import Wishes

# Enough that a second worker is there before the first has done it all.
STEPS = 1200
WISHES = Wishes(data="digits", hidden=(24,), latent=4, steps=STEPS, batch_size=96, microbatch=16, binarize="dynamic")


@pytest.fixture(scope="module")
def expected():
    return invariance.one_loop_in_a_fresh_process(WISHES)


@pytest.mark.parametrize(
    "way",
    [
        "2 workers, 3 shards, tcp",
        "3 workers, 3 shards, ipc",
        "one of two killed, another joins",
        "one of two slowed to a tenth",
        "stopped, resumed with 3 workers, 3 shards",
    ],
)
def test_the_last_checkpoint_and_all_metrics_are_bit_for_bit_those_of_one_loop(expected, way):
    transport, run = invariance.ways(STEPS)[way]
    assert invariance.different(expected, invariance.run(WISHES, transport, run)) == []


def test_another_seed_gives_other_bits(expected):
    other = invariance.one_loop_in_a_fresh_process(Wishes(**{**WISHES.said(), "seed": 1}))
    assert {"weights", "first_moment", "last metrics"} <= set(invariance.different(expected, other))
