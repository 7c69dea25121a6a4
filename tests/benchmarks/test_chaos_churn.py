"""The experiment in which workers come and go: what it expects of them, what counts as growth, and a short run."""

import os
import random
from typing import Any

import numpy as np
import pytest
from faults import churn, footprint


def test_so_many_steps_are_expected_as_the_live_workers_make_in_peace() -> None:
    live = [(0.0, 10.0), (4.0, 6.0), (5.0, 20.0)]
    # One worker for 4 s, two for 1 s, three for 1 s, two for 4 s, one for 2 s.
    assert [churn.live_workers(live, at) for at in (0.0, 4.0, 5.0, 6.0, 11.0, 20.0)] == [1, 2, 3, 2, 1, 0]
    assert churn.expected_steps(live, (0.0, 12.0), [10.0, 15.0, 18.0]) == pytest.approx(60.0 + 75.0 + 18.0)
    # Nobody there: nothing expected.
    assert churn.expected_steps([(1.0, 2.0)], (0.0, 3.0), [10.0]) == pytest.approx(10.0)


def test_growth_is_what_is_not_the_number_of_workers() -> None:
    times = np.linspace(100.0, 160.0, 61)
    workers = np.random.default_rng(0).integers(1, 5, times.size)
    held = 7.0 + 4.0 * workers
    assert footprint.growth(times.tolist(), held.tolist(), workers.tolist()) == pytest.approx(0.0, abs=1e-9)
    leaking = held + 0.25 * (times - times[0])
    assert footprint.growth(times.tolist(), leaking.tolist(), workers.tolist()) == pytest.approx(15.0)
    assert footprint.tenths([1.0] * 10 + [3.0] * 10) == (1.0, 3.0)


def test_a_process_is_looked_at() -> None:
    before = footprint.look(os.getpid())
    read, write = os.pipe()
    segment = os.memfd_create("test")
    try:
        after = footprint.look(os.getpid())
    finally:
        for descriptor in (read, write, segment):
            os.close(descriptor)
    assert after["descriptors"] == before["descriptors"] + 3
    assert after["segments"] == before["segments"] + 1
    assert after["heap_mb"] > 10.0
    assert footprint.cpu_seconds(os.getpid()) > 0.0


def sample(at: float, *, memory: float = 100.0, descriptors: float = 20.0) -> dict[str, Any]:
    held = {"heap_mb": memory, "shared_mb": 9.0, "descriptors": descriptors}
    held |= {"sockets": 4.0, "segments": 4.0, "threads": 5.0}
    return {"time": at, "workers": 2, "files": 1, "server": held, "worker": held}


def found(**more: Any) -> dict[str, Any]:
    usual = {"stuck": "", "same_bits": True, "codes": [0, 0], "killed": 10, "ratio": 0.91, "ratio_less_starts": 0.95}
    samples = [sample(float(at)) for at in range(300)]
    peace = {"stuck": "", "codes": [0], "steps_per_second": [1.0]}
    return usual | {"samples": samples, "seconds": 300.0, "window": (0.0, 300.0), "reference": peace} | more


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"same_bits": False}, "other bits"),
        ({"stuck": "not within 20 s"}, "not within"),
        ({"codes": [0, 1]}, "exit codes [0, 1]"),
        ({"ratio_less_starts": 0.89}, "0.890"),
        ({"samples": [sample(float(at), memory=100.0 + 0.04 * at) for at in range(300)]}, "heap_mb: grew by 9.6"),
        ({"samples": [sample(float(at), descriptors=20.0 + at // 8) for at in range(300)]}, "descriptors: grew by"),
    ],
)
def test_what_does_not_hold_under_churn_is_told(wrong: dict[str, Any], words: str) -> None:
    assert churn.faults(found()) == []
    faults = churn.faults(found(**wrong))
    assert faults
    assert all(words in fault for fault in faults)


def test_workers_come_and_go_and_the_bits_stay() -> None:
    digits = ("--data", "digits", "--hidden", "16", "--latent", "3", "--batch-size", "64", "--microbatch", "16")
    disturbed = churn.disturbed(churn.Churn(digits, seconds=7.0, every=1.0, chance=random.Random(1)))
    assert disturbed["stuck"] == ""
    assert disturbed["killed"] > 0
    assert disturbed["started"] > 2
    assert set(disturbed["codes"]) == {0}
    assert len(disturbed["samples"]) >= 5
    peace = churn.reference(digits, disturbed["version"], most=1)
    assert peace["stuck"] == ""
    assert peace["digest"] == disturbed["digest"]
