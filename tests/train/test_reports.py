"""Every step is in exactly one line of metrics.jsonl."""

import errno
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import small_config

from ps_vae.ps.outbox import StepApplied, Told
from ps_vae.train.reports import Reports
from ps_vae.train.run_folder import RunFolder

BATCH = 8


def event(version: int, staleness: int = 0) -> StepApplied:
    """The step that made `version`, with metrics from which the sum over any set of steps tells which they were."""
    return StepApplied(version - 1, version, staleness, (-BATCH * 2.0**version, BATCH * 4.0**version))


def steps_in(line: dict[str, float], count: int) -> list[int]:
    """The versions whose metrics are summed in a line that covers `count` steps."""
    powers = round(-line["reconstruction"] * count)
    versions = [bit for bit in range(64) if powers >> bit & 1]
    assert round(line["kl"] * count) == sum(4**version for version in versions)
    return versions


@settings(deadline=None)
@given(
    steps=st.integers(1, 20),
    start=st.integers(0, 19),
    report_every=st.integers(1, 8),
    milestone=st.integers(1, 8),
    flushes=st.sets(st.integers(1, 20)),
)
def test_lines_cover_every_step_once_whenever_they_are_written(
    tmp_path_factory: pytest.TempPathFactory,
    steps: int,
    start: int,
    report_every: int,
    milestone: int,
    flushes: set[int],
) -> None:
    start = min(start, steps - 1)
    config = small_config(steps=steps, report_every=report_every, checkpoint_every=milestone)
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    reports = Reports(config, folder)
    for version in range(start + 1, steps + 1):
        reports.step(event(version))
        if version in flushes:
            reports.flush()
    lines = folder.metrics()
    versions = [line["version"] for line in lines]
    due = {v for v in range(start + 1, steps + 1) if v % report_every == 0 or v % milestone == 0 or v in flushes}
    assert versions == sorted(due | {steps})
    for before, line in pairwise([{"version": start}, *lines]):
        covered = range(before["version"] + 1, line["version"] + 1)
        assert steps_in(line, len(covered)) == list(covered)


def test_a_line_has_means_over_examples_and_what_the_last_step_was_trained_with(tmp_path: Path) -> None:
    config = small_config(
        steps=8, report_every=2, checkpoint_every=8, beta=0.5, beta_warmup=4, schedule="cosine", learning_rate=0.1
    )
    folder = RunFolder(tmp_path)
    reports = Reports(config, folder)
    reports.step(StepApplied(0, 1, 3, (-80.0, 8.0)))
    reports.step(StepApplied(1, 2, 1, (-160.0, 24.0)))
    (line,) = folder.metrics()
    assert {name: line[name] for name in ("kind", "version", "elbo", "reconstruction", "kl", "beta", "staleness")} == {
        "kind": "training",
        "version": 2,
        "elbo": -17.0,  # at beta 1: -240 / 16 - 32 / 16
        "reconstruction": -15.0,
        "kl": 2.0,
        "beta": 0.125,  # a quarter of the way to 0.5
        "staleness": 3,
    }
    assert line["learning_rate"] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi / 8)), rel=1e-12)
    assert reports.latest.items() <= line.items()


def test_a_flush_without_new_steps_writes_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    reports = Reports(small_config(steps=4, report_every=4, checkpoint_every=4), folder)
    reports.flush()
    assert folder.metrics() == []
    reports.step(event(1))
    reports.flush()
    reports.flush()
    assert [line["version"] for line in folder.metrics()] == [1]


def test_staleness_is_the_worst_since_the_last_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    reports = Reports(small_config(steps=6, report_every=2, checkpoint_every=6), folder)
    for version, staleness in enumerate([0, 2, 1, 0, 0, 0], start=1):
        reports.step(event(version, staleness))
    assert [line["staleness"] for line in folder.metrics()] == [2, 1, 0]


def test_an_evaluators_figures_are_a_line_and_the_newest_of_them_is_shown(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    reports = Reports(small_config(), folder)
    for version, elbo in ((2, -50.0), (4, -40.0)):
        reports.told(Told(version, (("elbo", elbo), ("kl", 1.0))))
    assert folder.metrics() == [
        {"kind": "validation", "version": 2, "elbo": -50.0, "kl": 1.0},
        {"kind": "validation", "version": 4, "elbo": -40.0, "kl": 1.0},
    ]
    assert reports.validation == {"version": 4, "elbo": -40.0, "kl": 1.0}


def test_figures_that_are_told_again_are_no_second_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    Reports(small_config(), folder).told(Told(2, (("elbo", -50.0),)))
    resumed = Reports(small_config(), folder)
    resumed.resume(4)

    for version in (2, 4, 4):
        resumed.told(Told(version, (("elbo", -40.0),)))

    assert [line["version"] for line in folder.metrics()] == [2, 4]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the time is, `now`, for the reports."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(
        "ps_vae.train.reports.time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 1e9 + clock.now)
    )
    return clock


def test_speed_is_counted_from_the_first_step_to_the_last(tmp_path: Path, clock: SimpleNamespace) -> None:
    folder = RunFolder(tmp_path)
    reports = Reports(small_config(steps=9, report_every=3, checkpoint_every=9), folder)
    assert reports.speed() == (0.0, 0.0)
    for version, now in enumerate([160.0, 161.0, 162.0, 164.0, 166.0, 168.0], start=1):
        clock.now = now
        reports.step(event(version))
        if version == 1:
            assert reports.speed() == (0.0, 0.0)
    clock.now = 1_000.0
    assert reports.speed() == (8.0, 5 * BATCH / 8.0)
    assert reports.examples == 6 * BATCH
    first, second = folder.metrics()
    assert (first["time"], second["time"]) == (1e9 + 162.0, 1e9 + 168.0)
    # A minute went by before anybody worked: the first step is not timed.
    assert first["examples_per_second"] == 2 * BATCH / 2.0
    assert second["examples_per_second"] == 3 * BATCH / 6.0


def test_the_pace_of_a_first_line_of_one_step_is_not_known(tmp_path: Path, clock: SimpleNamespace) -> None:
    folder = RunFolder(tmp_path)
    reports = Reports(small_config(steps=9, report_every=1, checkpoint_every=9), folder)
    for version in (1, 2):
        clock.now += 0.5
        reports.step(event(version))
    assert [line["examples_per_second"] for line in folder.metrics()] == [None, BATCH / 0.5]


def test_the_pace_of_a_line_that_a_resumed_run_finishes_is_that_of_the_steps_of_both(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    config, folder = small_config(steps=9, report_every=9, checkpoint_every=9), RunFolder(tmp_path)
    start = 0
    for start, stop, seconds in ((0, 4, 5.0), (4, 9, 2.0)):
        reports = Reports(config, folder)
        reports.resume(start)
        # Until the first worker is there.
        clock.now += 90_000.0
        for version in range(start + 1, stop + 1):
            clock.now += seconds
            reports.step(event(version))
        # Until all processes have ended.
        clock.now += 3_000.0
        reports.flush()

    unfinished, line = folder.metrics()

    assert unfinished["examples_per_second"] == pytest.approx(3 * BATCH / 15.0, abs=0.05)
    assert line["examples_per_second"] == pytest.approx((3 + 4) * BATCH / (15.0 + 8.0), abs=0.05)


def test_an_unfinished_line_that_says_nothing_of_its_time_is_finished_all_the_same(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    config, folder = small_config(steps=9, report_every=4, checkpoint_every=9), RunFolder(tmp_path)
    stopped = Reports(config, folder)
    for version in (1, 2):
        stopped.step(event(version))
    stopped.flush()
    (unfinished,) = folder.metrics()
    del unfinished["timed"]
    folder.rewrite_metrics([unfinished])

    resumed = Reports(config, folder)
    resumed.resume(2)
    for version in (3, 4):
        clock.now += 2.0
        resumed.step(event(version))

    line = folder.metrics()[-1]
    assert steps_in(line, 4) == [1, 2, 3, 4]
    assert line["examples_per_second"] == BATCH / 2.0


def test_a_resumed_run_knows_the_figures_of_the_lines_that_it_goes_on_from(tmp_path: Path) -> None:
    config, folder = small_config(steps=9, report_every=3, checkpoint_every=9), RunFolder(tmp_path)
    before = Reports(config, folder)
    for version in range(1, 8):
        before.step(event(version))
    before.told(Told(6, (("elbo", -40.0),)))
    before.told(Told(7, (("elbo", -39.0),)))
    resumed = Reports(config, folder)
    resumed.resume(6)
    assert resumed.latest == before.latest
    assert resumed.latest["version"] == 6
    assert resumed.validation == {"elbo": -40.0, "version": 6}


def test_a_line_that_the_disk_refuses_is_told_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    config = small_config(steps=4, report_every=1, checkpoint_every=4)
    folder.create(config)
    reports = Reports(config, folder)

    def refuse(folder: RunFolder, line: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(RunFolder, "append_metrics", refuse)
        reports.step(StepApplied(0, 1, 0, (-1.0, 0.5)))
        assert "metrics.jsonl could not be written: No space left on device" in reports.unwritten
    reports.step(StepApplied(1, 2, 0, (-1.0, 0.5)))
    assert reports.unwritten == ""
    assert [line["version"] for line in folder.metrics()] == [2]


TIMES = ("time", "examples_per_second")


def finished(folder: RunFolder) -> list[dict[str, Any]]:
    return [line for line in folder.metrics() if line["kind"] != "unfinished"]


@pytest.mark.parametrize("stops", [(3,), (4,), (5,), (1, 2, 3), (4, 7), ()])
def test_a_run_that_was_stopped_and_resumed_has_the_lines_of_one_that_was_not(
    tmp_path: Path, stops: tuple[int, ...]
) -> None:
    config = small_config(steps=10, report_every=4, checkpoint_every=10)
    folder = RunFolder(tmp_path)
    start = 0
    for stop in (*stops, 10):
        reports = Reports(config, folder)
        reports.resume(start)
        for version in range(start + 1, stop + 1):
            reports.step(event(version, staleness=version % 3))
        reports.flush()
        start = stop
    lines = [{key: line[key] for key in line if key not in TIMES} for line in finished(folder)]

    (tmp_path / "whole").mkdir()
    whole = RunFolder(tmp_path / "whole")
    reports = Reports(config, whole)
    for version in range(1, 11):
        reports.step(event(version, staleness=version % 3))
    assert lines == [{key: line[key] for key in line if key not in TIMES} for line in whole.metrics()]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 2)), max_size=8))
def test_every_step_is_in_one_line_however_the_sessions_before_ended_and_whatever_they_left(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[tuple[int, bool, int]]
) -> None:
    """Each of so many steps; killed, or stopped cleanly; so many of the newest checkpoints are damaged then."""
    config = small_config(steps=20, report_every=4, checkpoint_every=10)
    folder, checkpoints = RunFolder(tmp_path_factory.mktemp("run")), [0]
    for steps, is_killed, damaged in [*sessions, (20, False, 0)]:
        start = checkpoints[-1]
        reports = Reports(config, folder)
        reports.resume(start)
        for version in range(start + 1, min(start + steps, 20) + 1):
            reports.step(event(version))
            if version % config.milestone == 0 or (version == start + steps and not is_killed):
                checkpoints.append(version)
        if not is_killed:
            reports.flush()
        checkpoints = checkpoints[: max(1, len(checkpoints) - damaged)]

    lines = finished(folder)
    assert [line["version"] for line in lines] == [4, 8, 10, 12, 16, 20]
    for before, line in pairwise([{"version": 0}, *lines]):
        covered = range(before["version"] + 1, line["version"] + 1)
        assert steps_in(line, len(covered)) == list(covered)


def test_a_resumed_run_forgets_what_it_does_again_and_goes_on_behind_a_line_that_was_cut_off(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    figures = dict.fromkeys(("elbo", "reconstruction", "kl", "beta", "learning_rate", "staleness"), 0.5)
    for version in (2, 4, 6):
        folder.append_metrics({"kind": "training", "version": version, **figures})
        folder.append_metrics({"kind": "validation", "version": version})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train')
    Reports(small_config(), folder).resume(4)
    folder.append_metrics({"kind": "training", "version": 5})
    assert [(line["kind"], line["version"]) for line in folder.metrics()] == [
        ("training", 2),
        ("validation", 2),
        ("training", 4),
        ("validation", 4),
        ("training", 5),
    ]
