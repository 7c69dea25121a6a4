"""Figures of a run: the same whoever computes them, and those that the formulas give."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import small_config, small_data, small_weights

from ps_vae.errors import UsageError
from ps_vae.nn.noise import Stream, standard_normal
from ps_vae.train import evaluation, row_tasks
from ps_vae.train.checkpoint import Checkpoint, write
from ps_vae.train.evaluation import evaluate
from ps_vae.train.examples import fixed_rows
from ps_vae.train.run_folder import RunFolder
from ps_vae.train.update import fresh_state
from ps_vae.vae.evidence import estimate_evidence
from ps_vae.vae.inference import encode
from ps_vae.vae.layout import ParameterLayout

CONFIG = small_config(binarize="static", seed=5)
LAYOUT = ParameterLayout(CONFIG.model)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped before its first step."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    folder.create(CONFIG)
    write(folder.checkpoints, LAYOUT, Checkpoint(fresh_state(CONFIG, small_weights(CONFIG)), (0.0, 0.0)))
    return folder.path


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set for the evaluating processes is not left to later tests."""
    for name in ("OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE"):
        if name in os.environ:
            monkeypatch.setenv(name, os.environ[name])
        else:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)


def figures(
    run_dir: Path,
    *,
    processes: int = 1,
    samples: int = 0,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    return evaluate(
        run_dir,
        split="test",
        samples=samples,
        processes=processes,
        limit=limit,
        progress=progress,
        say=lambda text: None,
    )


def expected_evidence(count: int, samples: int) -> tuple[Any, Any, Any]:
    evidence = estimate_evidence(
        LAYOUT.bind(small_weights(CONFIG)),
        fixed_rows(CONFIG, small_data(), "test", 0, count),
        samples=samples,
        seed=5,
        rows=np.arange(count),
    )
    return evidence.log_evidence, evidence.standard_error, evidence.effective_sample_size


def expected_terms(count: int) -> tuple[Any, Any]:
    """log p(x|z) and KL of the first rows: the model written down in float64 NumPy."""
    weights = {name: view.astype(np.float64) for name, view in LAYOUT.views(small_weights(CONFIG)).items()}

    def layer(x: Any, name: str) -> Any:
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = fixed_rows(CONFIG, small_data(), "test", 0, count).astype(np.float64)
    mean, raw = np.split(layer(np.maximum(layer(x, "encoder.0"), 0), "posterior"), 2, axis=1)
    log_variance = raw + np.logaddexp(0, -20 - raw) - np.logaddexp(0, raw - 10)
    noise = np.empty((count, 2), np.float32)
    standard_normal(noise, seed=5, stream=Stream.EVALUATION, step=0, rows=np.arange(count))
    logits = layer(np.maximum(layer(mean + np.exp(log_variance / 2) * noise, "decoder.0"), 0), "likelihood")
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)
    return (x * logits - np.logaddexp(0, logits)).sum(axis=1), kl


def test_figures_and_the_progress_that_is_told_do_not_depend_on_the_number_of_processes(run_dir: Path) -> None:
    told: list[tuple[int, int]] = []
    one, two = (
        figures(run_dir, processes=n, samples=50, limit=45, progress=lambda *counts: told.append(counts))
        for n in (1, 2)
    )
    assert one == two
    assert json.loads(json.dumps(one)) == one
    assert told == [(20, 45), (40, 45), (45, 45)] * 2


def test_the_weights_are_those_of_the_version_that_was_asked_for(run_dir: Path) -> None:
    whole = {"split": "test", "samples": 0, "processes": 1, "limit": None}
    whole |= {"progress": lambda done, total: None, "say": lambda text: None}
    assert evaluate(run_dir, **whole, version=0) == figures(run_dir)
    with pytest.raises(UsageError, match="has no checkpoint of version 7"):
        evaluate(run_dir, **whole, version=7)


def test_divergence_by_dimension_and_active_units_are_those_of_the_posteriors(run_dir: Path) -> None:
    found = figures(run_dir, limit=100)
    posterior = encode(LAYOUT.bind(small_weights(CONFIG)), fixed_rows(CONFIG, small_data(), "test", 0, 100))
    deviation = np.exp(posterior.log_variance / 2)
    kl = -np.log(deviation) + (deviation**2 + posterior.mean**2) / 2 - 0.5
    np.testing.assert_allclose(found["kl_by_dimension"], kl.mean(axis=0), rtol=1e-4)
    assert sum(found["kl_by_dimension"]) == pytest.approx(found["kl"], rel=1e-6)
    assert found["active_units"] == (posterior.mean.std(axis=0) > 0.1).sum()


def test_nll_and_its_standard_error_are_those_of_the_rows(run_dir: Path) -> None:
    found = figures(run_dir, samples=600, limit=21)
    log_evidence, standard_error, size = expected_evidence(21, 600)
    assert (found["split"], found["examples"], found["version"], found["samples"]) == ("test", 21, 0, 600)
    # The evaluating processes may use another GEMM kernel than this one.
    assert found["nll"] == pytest.approx(-log_evidence.mean(), rel=1e-6)
    assert found["nll_se"] == pytest.approx(math.sqrt((standard_error**2).sum()) / 21, rel=1e-4)
    assert found["effective_sample_size"] == pytest.approx(size.mean(), rel=1e-4)


@pytest.mark.parametrize("limit", [1, 7, 20, 179, 10_000, None])
def test_a_limit_takes_the_first_rows_with_the_figures_that_they_always_have(run_dir: Path, limit: int | None) -> None:
    count = min(limit or 179, 179)
    log_likelihood, kl = expected_terms(179)
    found = figures(run_dir, limit=limit)
    assert found["examples"] == count
    assert found["reconstruction"] == pytest.approx(log_likelihood[:count].mean(), rel=1e-5)
    assert found["kl"] == pytest.approx(kl[:count].mean(), rel=1e-4)
    assert found["elbo"] == pytest.approx((log_likelihood - kl)[:count].mean(), rel=1e-5)


def test_a_row_has_the_same_evidence_in_a_part_of_any_size(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(size: int) -> evaluation.RowScores:
        monkeypatch.setattr(row_tasks, "_ROWS_A_TASK", size)
        _, scores = evaluation.score_rows(
            run_dir, split="test", samples=30, processes=1, limit=23, progress=lambda done, total: None, say=print
        )
        return scores

    whole, parts = scored(23), [scored(size) for size in (1, 4, 20)]
    for part in parts:
        np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize("wish", [{"samples": 1}, {"samples": -1}, {"processes": 0}, {"limit": 0}])
def test_impossible_wishes_are_refused(run_dir: Path, wish: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--samples is 0 or at least 2, --processes and --limit are at least 1"):
        figures(run_dir, **wish)
