"""How good a trained model is: the ELBO and, by importance sampling, -log p(x), spread over this machine's cores.

A row's figures follow from the row's name and the run's seed, so they do not depend on how rows are spread.
"""

import math
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ps_vae.errors import PsVaeError, UsageError
from ps_vae.train.arithmetic import use_one_thread
from ps_vae.train.elbo import row_terms
from ps_vae.train.processes import prepare_environment
from ps_vae.train.trained import TrainedModel
from ps_vae.train.warm_up import warm_up_evidence
from ps_vae.vae.config import prior_of
from ps_vae.vae.evidence import estimate_evidence
from ps_vae.vae.inference import encode

__all__ = ["RowScores", "evaluate", "score_rows"]

_ROWS_A_TASK = 20
_CHUNK = 1024
_ACTIVE = 0.01

Sums = npt.NDArray[np.float64]


class RowScores(NamedTuple):
    """Per row: log p(x), its standard error, effective sample size."""

    log_evidence: Sums
    standard_error: Sums
    effective_sample_size: Sums

    def rows(self) -> Iterator[tuple[int, float, float, float]]:
        """Number of the row, -log p(x), its standard error, effective sample size."""
        for number, (log_evidence, error, size) in enumerate(zip(*self, strict=True)):
            yield number, -float(log_evidence), float(error), float(size)


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
) -> RowScores:
    """log p(x) of each row of a split; arguments and errors as of `evaluate`."""
    if samples < 2 or processes < 1 or (limit is not None and limit < 1):
        raise UsageError("--samples is at least 2, --processes and --limit are at least 1")
    use_one_thread()
    model = TrainedModel.open(run_dir, version=version, say=say)
    count = min(len(model.data.split(split)), limit or len(model.data.split(split)))
    return _evidence(model, split, count, samples, processes, progress)


def _elbo(model: TrainedModel, split: str, count: int) -> tuple[Sums, Sums]:
    parts = []
    for start, stop in _spans(count, _CHUNK):
        examples = model.examples(split, start, stop)
        parts.append(row_terms(model.parameters, examples, model.config.seed, np.arange(start, stop, dtype=np.int64)))
    return np.concatenate([part.log_likelihood for part in parts]), np.concatenate([part.kl for part in parts])


def _units(model: TrainedModel, split: str, count: int) -> dict[str, Any]:
    """How much each latent dimension is used."""
    means, kl = [], []
    for start, stop in _spans(count, _CHUNK):
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
    spans = list(_spans(count, _ROWS_A_TASK))
    done = 0
    parts: list[RowScores] = []
    prepare_environment()
    # Here, where there is somebody to tell; the processes then find the kernels in the cache.
    warm_up_evidence(model.parameters)
    # Fresh interpreters: BLAS has to be told its threads and kernels before it is loaded.
    fresh = multiprocessing.get_context("spawn")
    arguments = (str(model.run_dir), model.version, split, samples)
    try:
        with ProcessPoolExecutor(processes, fresh, _open_in_child, arguments) as pool:
            for (start, stop), part in zip(spans, pool.map(_evidence_in_child, spans), strict=True):
                parts.append(part)
                done += stop - start
                progress(done, count)
    except BrokenProcessPool:
        raise PsVaeError("an evaluating process was killed (out of memory?); give fewer --processes") from None
    return RowScores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, count)) for start in range(0, count, size))


_child: dict[str, Any] = {}


def _open_in_child(run_dir: str, version: int, split: str, samples: int) -> None:
    use_one_thread()
    model = TrainedModel.open(Path(run_dir), version=version, say=lambda text: None)
    _child.update(model=model, split=split, samples=samples)


def _evidence_in_child(span: tuple[int, int]) -> RowScores:
    model: TrainedModel = _child["model"]
    evidence = estimate_evidence(
        model.parameters,
        model.examples(_child["split"], *span),
        samples=_child["samples"],
        seed=model.config.seed,
        rows=np.arange(*span, dtype=np.int64),
    )
    return RowScores(evidence.log_evidence, evidence.standard_error, evidence.effective_sample_size)
