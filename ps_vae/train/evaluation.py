"""How good a trained model is: the ELBO and, by importance sampling, -log p(x), spread over this machine's cores.

A row's figures follow from the row's name and the run's seed, so they do not depend on how rows are spread.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ps_vae.errors import UsageError
from ps_vae.train.arithmetic import use_one_thread
from ps_vae.train.elbo import row_terms
from ps_vae.train.row_tasks import over_rows, spans
from ps_vae.train.trained import TrainedModel
from ps_vae.vae.config import prior_of
from ps_vae.vae.evidence import estimate_evidence
from ps_vae.vae.inference import encode

__all__ = ["RowScores", "evaluate", "score_rows"]

_CHUNK = 1024
_ACTIVE = 0.01

Sums = npt.NDArray[np.float64]


class RowScores(NamedTuple):
    """Per row: its number in the data (`TrainedModel.rows`), log p(x), its standard error, effective sample size."""

    number: npt.NDArray[np.int64]
    log_evidence: Sums
    standard_error: Sums
    effective_sample_size: Sums

    def rows(self) -> Iterator[tuple[int, float, float, float]]:
        """Number of the row, -log p(x), its standard error, effective sample size."""
        for number, log_evidence, error, size in zip(*self, strict=True):
            yield int(number), -float(log_evidence), float(error), float(size)


def evaluate(
    run_dir: Path,
    *,
    split: str,
    samples: int,
    processes: int,
    limit: int | None,
    progress: Callable[[int, int], None],
    say: Callable[[str], None],
    version: int | str | None = None,
) -> dict[str, Any]:
    """Figures of a split, means in nats per example.

    samples   importance samples an example for -log p(x); 0: the ELBO alone
    limit     only the first so many rows
    progress  called with rows done and rows in all
    version   whose weights; None: the newest checkpoint's

    elbo, reconstruction, kl are at beta = 1, whatever the run trained with; as a rate and a distortion, kl and
    -reconstruction. active_units are the latent dimensions whose posterior mean has a variance above 0.01 over the rows
    (Burda et al. 2016, section 5.2); kl_by_dimension, where the prior is standard, is each one's mean. nll is the mean
    of -log p(x) over the rows; nll_se the standard error that sampling leaves in it, sqrt(sum of the rows' squared
    errors) / rows; effective_sample_size the mean over the rows (small ones say that nll is too high).

    Raises UsageError for impossible wishes, DataError or CheckpointError where the run cannot be read.
    """
    if samples < 0 or samples == 1 or processes < 1 or (limit is not None and limit < 1):
        raise UsageError("--samples is 0 or at least 2, --processes and --limit are at least 1")
    use_one_thread()
    model = TrainedModel.open(run_dir, version=version, say=say)
    count = min(len(model.data.split(split)), limit or len(model.data.split(split)))
    log_likelihood, kl = _elbo(model, split, count)
    result: dict[str, Any] = {
        "split": split,
        "examples": count,
        "version": model.version,
        "elbo": float(log_likelihood.mean() - kl.mean()),
        "reconstruction": float(log_likelihood.mean()),
        "kl": float(kl.mean()),
        **_units(model, split, count),
    }
    if samples:
        rows = _evidence(model, split, count, samples, processes, progress)
        result |= {
            "samples": samples,
            "nll": float(-rows.log_evidence.mean()),
            "nll_se": math.sqrt(float(np.square(rows.standard_error).sum())) / count,
            "effective_sample_size": float(rows.effective_sample_size.mean()),
        }
    return result


def score_rows(
    run_dir: Path,
    *,
    split: str,
    samples: int,
    processes: int,
    limit: int | None,
    progress: Callable[[int, int], None],
    say: Callable[[str], None],
    version: int | str | None = None,
) -> tuple[str, RowScores]:
    """What rows are counted in, and log p(x) of each row of a split, in that order; else as `evaluate`."""
    if samples < 2 or processes < 1 or (limit is not None and limit < 1):
        raise UsageError("--samples is at least 2, --processes and --limit are at least 1")
    use_one_thread()
    model = TrainedModel.open(run_dir, version=version, say=say)
    count = min(len(model.data.split(split)), limit or len(model.data.split(split)))
    scores = _evidence(model, split, count, samples, processes, progress)
    order = np.argsort(scores.number)
    columns: Iterator[Any] = (column[order] for column in scores)
    return model.data.split(split).place, RowScores(*columns)


def _elbo(model: TrainedModel, split: str, count: int) -> tuple[Sums, Sums]:
    parts = []
    for start, stop in spans(count, _CHUNK):
        examples = model.examples(split, start, stop)
        parts.append(row_terms(model.parameters, examples, model.config.seed, np.arange(start, stop, dtype=np.int64)))
    return np.concatenate([part.log_likelihood for part in parts]), np.concatenate([part.kl for part in parts])


def _units(model: TrainedModel, split: str, count: int) -> dict[str, Any]:
    """How much each latent dimension is used."""
    means, kl = [], []
    for start, stop in spans(count, _CHUNK):
        posterior = encode(model.parameters, model.examples(split, start, stop))
        mean, log_variance = (part.astype(np.float64) for part in posterior)
        means.append(mean)
        kl.append(0.5 * (np.square(mean) + np.expm1(log_variance) - log_variance))
    active = int((np.concatenate(means).var(axis=0) > _ACTIVE).sum())
    by_dimension = np.concatenate(kl).mean(axis=0).tolist() if prior_of(model.config.model).is_standard else None
    return {"active_units": active, "kl_by_dimension": by_dimension}


def _evidence(
    model: TrainedModel, split: str, count: int, samples: int, processes: int, progress: Callable[[int, int], None]
) -> RowScores:
    parts = over_rows(model, count, _score, split, samples, processes=processes, progress=progress)
    return RowScores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _score(model: TrainedModel, start: int, stop: int, split: str, samples: int) -> RowScores:
    evidence = estimate_evidence(
        model.parameters,
        model.examples(split, start, stop),
        samples=samples,
        seed=model.config.seed,
        rows=np.arange(start, stop, dtype=np.int64),
    )
    return RowScores(
        model.rows(split, start, stop), evidence.log_evidence, evidence.standard_error, evidence.effective_sample_size
    )
