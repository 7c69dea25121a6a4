"""More workers than a step has work for are told of, where a step waits for all of them."""

import pytest
from small_run import small_config

from ps_vae.train.advice import idle_workers


@pytest.mark.parametrize(("workers", "is_told"), [(1, False), (4, False), (5, True), (64, True)])
def test_more_workers_than_microbatches_are_told_of(workers: int, is_told: bool) -> None:
    config = small_config(batch_size=8, microbatch=2)
    line = idle_workers(config, workers)
    assert (line is not None) == is_told
    if line is not None:
        assert f"with {workers} workers and --microbatch 2 the batch of 8 rows keeps 4 of them busy" in line


@pytest.mark.parametrize("consistency", ["asp", "ssp:2"])
def test_workers_that_do_not_wait_for_one_another_are_never_idle(consistency: str) -> None:
    assert idle_workers(small_config(batch_size=8, microbatch=8, consistency=consistency), 9) is None
