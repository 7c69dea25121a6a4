"""A run ends when nothing gets better, and what was best stays."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import small_config, small_weights

from ps_vae.data import from_arrays, load
from ps_vae.errors import NothingLeft, UsageError
from ps_vae.ps.outbox import Told
from ps_vae.train.best import Best
from ps_vae.train.checkpoint import Checkpoint, write
from ps_vae.train.continuation import ended_before
from ps_vae.train.early_stop import EarlyStop
from ps_vae.train.first_server import FirstServer
from ps_vae.train.plan import Wishes, plan
from ps_vae.train.processes import StopSignal
from ps_vae.train.reports import Reports
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.server import serve
from ps_vae.train.server_options import ServerOptions
from ps_vae.train.start import settle
from ps_vae.train.trained import TrainedModel
from ps_vae.train.update import fresh_state
from ps_vae.vae.layout import ParameterLayout

figures = st.lists(st.floats(allow_nan=True, allow_infinity=False, width=16))


def judged(elbos: list[float]) -> Best:
    return Best.of({"kind": "validation", "version": at, "elbo": elbo} for at, elbo in enumerate(elbos))


@given(figures)
def test_the_best_is_the_first_of_the_highest_and_nan_is_none(elbos: list[float]) -> None:
    best, counted = judged(elbos), elbos[1:]
    numbers = [elbo for elbo in counted if not math.isnan(elbo)]
    if not numbers:
        assert (best.version, best.since) == (None, len(counted))
        return
    assert best.elbo == max(numbers)
    assert best.version == elbos.index(max(numbers), 1)
    assert best.since == len(elbos) - 1 - best.version


@given(figures, st.integers(0, 4))
def test_patience_ends_after_so_many_in_a_row_that_were_no_better(elbos: list[float], patience: int) -> None:
    assert judged(elbos).is_over(patience) is (patience > 0 and judged(elbos).since >= patience)


def test_a_run_without_validation_rows_cannot_be_given_patience(tmp_path: Path) -> None:
    data = from_arrays("X", np.random.default_rng(0).random((50, 4)), "1,0,0")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((50, 4)))
    with pytest.raises(UsageError, match="--patience 3 waits for"):
        plan(Wishes(data="X", split="1,0,0", patience=3), data)
    config = plan(Wishes(data=str(tmp_path / "x.npy"), split="1,0,0"), load(str(tmp_path / "x.npy"), "1,0,0"))
    RunFolder(tmp_path / "run").create(config)
    with pytest.raises(UsageError, match="--patience 3 waits for"):
        settle(Wishes(patience=3), tmp_path / "run", resumes=True)


def ps_vae(*words: str) -> dict:
    result = subprocess.run(
        [sys.executable, "-m", "ps_vae", *words, "--json"], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A run that has a rate with which it gets worse at some time, long before its end."""
    run_dir = tmp_path_factory.mktemp("early") / "run"
    words = ["--data", "digits", "--hidden", "64", "--latent", "8", "--learning-rate", "0.05", "--steps", "100000"]
    words += ["--checkpoint-every", "20", "--patience", "4", "--keep", "1", "--run-dir", str(run_dir), "--no-pictures"]
    return run_dir, ps_vae("train", *words)


def test_a_run_that_gets_no_better_is_stopped_and_says_so(stopped: tuple[Path, dict]) -> None:
    run_dir, result = stopped
    assert result["stopped_early"]
    assert result["reason"].startswith("stopped early: no better validation ELBO than")
    assert result["reason"].endswith("in 4 evaluations")
    assert result["version"] < 100_000
    told = [line for line in RunFolder(run_dir).metrics() if line["kind"] == "validation"]
    highest = max(told, key=lambda line: line["elbo"])
    assert result["best"] == {"version": highest["version"], "elbo": highest["elbo"]}
    (decision,) = [line for line in RunFolder(run_dir).metrics() if line["kind"] == "stopped-early"]
    assert (decision["reason"], decision["patience"]) == (result["reason"], 4)


def test_the_best_checkpoint_stays_and_can_be_asked_for(stopped: tuple[Path, dict]) -> None:
    run_dir, result = stopped
    best = result["best"]
    assert TrainedModel.open(run_dir, version="best", say=lambda text: None).version == best["version"]
    assert TrainedModel.open(run_dir, version="newest", say=lambda text: None).version > best["version"]
    found = ps_vae("evaluate", str(run_dir), "--split", "validation", "--version", "best")
    assert found["elbo"] == pytest.approx(best["elbo"], rel=1e-6)
    with pytest.raises(UsageError, match="--version worst: give a number, newest or best"):
        TrainedModel.open(run_dir, version="worst", say=lambda text: None)


def test_a_run_that_was_killed_before_it_noted_that_it_was_stopped_early_ends_so(stopped: tuple[Path, dict]) -> None:
    run_dir, _ = stopped
    (run_dir / "result.json").unlink()

    result = ps_vae("train", "--resume", "--run-dir", str(run_dir), "--no-pictures")

    assert result["stopped_early"]
    assert result["reason"].startswith("stopped early: no better validation ELBO than")
    assert result["version"] < 100_000
    assert RunFolder(run_dir).result() == result


def test_a_run_that_was_stopped_early_is_over_until_it_is_given_more_patience(stopped: tuple[Path, dict]) -> None:
    run_dir, _ = stopped
    options = ServerOptions(listen=f"ipc://{run_dir}/server", run_dir=run_dir, resume=True)
    with pytest.raises(NothingLeft, match=r"stopped early: .* give more --patience than 4, or 0, to go on"):
        serve(Wishes(), options, say=lambda text: None, should_stop=lambda: True)


PATIENT = small_config(steps=12, report_every=2, checkpoint_every=2, patience=2)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of a run that is at version 6, and that nobody has evaluated yet."""
    folder = RunFolder(tmp_path / "run")
    folder.create(PATIENT)
    state = fresh_state(PATIENT, small_weights(PATIENT))
    state.version = 6
    write(folder.checkpoints, ParameterLayout(PATIENT.model), Checkpoint(state, (-1.0, 1.0)))
    return folder


def resume(folder: RunFolder, should_stop: StopSignal, **wishes: int) -> dict:
    options = ServerOptions(listen=f"ipc://{folder.path.parent}/server", run_dir=folder.path, resume=True)
    return serve(Wishes(**wishes), options, say=lambda text: None, should_stop=should_stop)


def resume_and_stop(folder: RunFolder, **wishes: int) -> dict:
    should_stop = StopSignal()
    should_stop.count = 1
    return resume(folder, should_stop, **wishes)


@pytest.fixture
def judged_late(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the run ends with when versions 1, 2 and 4 are told, and after its decision 6, which is better than all."""
    told = [Told(version, (("elbo", elbo),)) for version, elbo in ((1, -20.0), (2, -21.0), (4, -22.0), (6, -19.0))]
    tick = FirstServer._tick

    def tick_and_tell(self: FirstServer) -> None:
        tick(self)
        if told and (len(told) > 1 or self._coordinator.phase in ("stopping", "closing")):
            self._notice(told.pop(0))

    monkeypatch.setattr(FirstServer, "_tick", tick_and_tell)
    result = resume(folder, StopSignal())
    assert not told
    return result


def test_an_evaluation_that_comes_after_the_decision_is_the_best_and_the_run_is_over_all_the_same(
    folder: RunFolder, judged_late: dict
) -> None:
    why = "stopped early: no better validation ELBO than -20.000 nats at version 1 in 2 evaluations"
    assert (judged_late["stopped_early"], judged_late["reason"]) == (True, why)
    assert judged_late["best"] == {"version": 6, "elbo": -19.0}
    assert TrainedModel.open(folder.path, version="best", say=lambda text: None).version == 6
    assert folder.result() == ended_before(folder.path) == judged_late
    for wishes in ({}, {"patience": 2}, {"patience": 1}, {"steps": 50}):
        with pytest.raises(NothingLeft, match=f"{why}; give more --patience than 2, or 0, to go on"):
            resume_and_stop(folder, **wishes)


def test_a_decision_is_made_at_the_evaluation_that_ends_patience_though_better_ones_come_with_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [Told(version, (("elbo", elbo),)) for version, elbo in ((1, -20.0), (2, -21.0), (4, -22.0), (6, -19.0))]
    tick = FirstServer._tick

    def tell_all_and_tick(self: FirstServer) -> None:
        while told and self._coordinator.phase == "training":
            self._notice(told.pop(0))
        tick(self)

    monkeypatch.setattr(FirstServer, "_tick", tell_all_and_tick)
    result = resume(folder, StopSignal())
    assert result["reason"].endswith("-20.000 nats at version 1 in 2 evaluations")
    assert (result["stopped_early"], result["best"]) == (True, {"version": 6, "elbo": -19.0})


@pytest.mark.usefixtures("judged_late")
@pytest.mark.parametrize("patience", [0, 3])
def test_with_more_patience_the_run_goes_on_and_its_decision_is_forgotten(folder: RunFolder, patience: int) -> None:
    assert resume_and_stop(folder, patience=patience)["reason"] == "stopped"
    assert resume_and_stop(folder, patience=2)["reason"] == "stopped"
    assert {line["kind"] for line in folder.metrics()} == {"validation"}


@pytest.mark.usefixtures("judged_late")
def test_a_decision_holds_where_the_server_was_killed_before_its_end(folder: RunFolder) -> None:
    folder.forget_result()
    over = ended_before(folder.path)
    assert (over["version"], over["steps"], over["stopped_early"], over["failed"]) == (6, 12, True, False)
    assert over["reason"].endswith("in 2 evaluations")
    noted = resume(folder, StopSignal())
    assert (noted["version"], noted["stopped_early"], noted["reason"]) == (6, True, over["reason"])
    assert folder.result() == noted


def test_a_decision_is_one_of_the_versions_up_to_its_own(folder: RunFolder) -> None:
    """Where all later checkpoints are damaged, the run goes on as if it had not been made."""
    later = EarlyStop(8, 2, "stopped early: as version 8 was")
    folder.rewrite_metrics([later.line])
    assert resume_and_stop(folder)["reason"] == "stopped"
    assert folder.metrics() == []


def test_a_server_that_takes_the_run_up_before_its_end_ends_it_for_the_same_reason(folder: RunFolder) -> None:
    before = Reports(PATIENT, folder)
    for version, elbo in ((2, -20.0), (4, -21.0), (5, -22.0)):
        assert before.decide() is None
        before.told(Told(version, (("elbo", elbo),)))
    decision = before.decide()
    before.told(Told(6, (("elbo", -19.0),)))
    assert before.decide() == decision

    after = Reports(PATIENT, folder)
    after.resume(6)

    assert after.decide() == decision
    assert after.best.version == 6
    assert [line["version"] for line in folder.metrics() if line["kind"] == "stopped-early"] == [5]
