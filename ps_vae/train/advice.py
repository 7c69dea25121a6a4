"""What a user should know of data that a model will make little of: scales, and columns that never change; and of
workers that have nothing to do."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ps_vae.data import Moments
from ps_vae.lines import WARNING, Line
from ps_vae.nn.arrays import Array, Sums
from ps_vae.nn.likelihoods.gaussian_learned import varies
from ps_vae.ps.consistency import parse_consistency
from ps_vae.train.config import RunConfig

__all__ = ["advice", "idle_workers"]

_ADVICE = "WARNING: the data"
# Root mean square of a feature from which an encoder's first layer is far from where it can learn.
_FAR = 100.0
# Deviation of a feature from which a decoder's steps, of about the learning rate, are larger than it.
_NEAR = 0.01
# A deviation from the usual one, of features that share one sigma.
_APART = 100.0
_SHARED = ("gaussian", "gaussian-shared")
# They cannot be scaled.
_COUNTS = ("poisson", "negative-binomial", "multinomial")
_OWN = ("gaussian-feature", "gaussian-decoder")
_SCALE = "scale every column to a deviation of 1 (scikit-learn: StandardScaler)"
_NAMED = 5


def advice(config: RunConfig, moments: Moments) -> Iterator[Line]:
    """Lines, each of them a warning, about features (counted from 0) of the training data."""
    deviations = np.sqrt(np.maximum(moments.variances, 0))
    changes = varies(moments.means, moments.variances)
    yield from _far_from_zero(config, np.hypot(moments.means, deviations))
    yield from _one_sigma(config, deviations, changes)
    yield from _own_sigma(config, deviations, changes)
    yield from _constant(config, changes)


def _far_from_zero(config: RunConfig, size: Sums) -> Iterator[Line]:
    # Of a table with a likelihood for each column the encoder sees deviations from the means.
    if config.model.likelihood in _COUNTS or config.model.variables:
        return
    if (far := np.flatnonzero(size > _FAR)).size:
        text = "{begins} have values of about {size:.3g} in {columns}; the encoder learns little from them: {hint}"
        yield _line(config, "large-values", text, far, size=float(size.max()), hint=_SCALE)


def _one_sigma(config: RunConfig, deviations: Sums, changes: Array) -> Iterator[Line]:
    if config.model.likelihood not in _SHARED or not changes.any():
        return
    usual, most = float(np.median(deviations[changes])), float(deviations.max())
    if (wide := np.flatnonzero(deviations > _APART * usual)).size:
        text = (
            "{begins} have deviations of about {usual:.3g}, but up to {most:.3g} in {columns}, and one sigma is "
            "for all of them: the largest decide; {hint}, or take gaussian-feature"
        )
        yield _line(config, "unlike-scales", text, wide, usual=usual, most=most, hint=_SCALE)
    sigma, of = 1.0, "a decoder's steps"
    if config.model.likelihood == "gaussian":
        sigma, of = config.model.sigma, f"--sigma {config.model.sigma:g}"
    if most < _NEAR * sigma:
        text = "{begins} have deviations of {most:.3g} at most, in {columns}, too little beside {of}: {hint}"
        yield _line(config, "small-deviations", text, np.flatnonzero(changes), most=most, of=of, hint=_SCALE)


def _own_sigma(config: RunConfig, deviations: Sums, changes: Array) -> Iterator[Line]:
    if config.model.likelihood not in _OWN or config.model.variables:
        return
    if (small := np.flatnonzero(changes & (deviations < _NEAR))).size:
        text = (
            "{begins} have deviations of only {least:.3g} in {columns}; a decoder's steps are larger, and log p(x) "
            "falls far before it rises: {hint}"
        )
        yield _line(config, "small-deviations", text, small, least=float(deviations[small].min()), hint=_SCALE)


def _constant(config: RunConfig, changes: Array) -> Iterator[Line]:
    has_own = np.full(changes.size, config.model.likelihood in _OWN)
    if config.model.variables:
        has_own = np.concatenate([[each.likelihood in _OWN] * each.features for each in config.model.variables])
    if (constant := np.flatnonzero(has_own & ~changes)).size:
        text = (
            "{begins} never change in {columns}: a deviation of their own has nothing to learn, and their densities "
            "only raise log p(x); leave them out"
        )
        yield _line(config, "constant-columns", text, constant)


def idle_workers(config: RunConfig, workers: int) -> Line | None:
    """A warning, where there are more workers than a synchronous step has microbatches."""
    if not parse_consistency(config.consistency).is_synchronous or workers <= config.microbatches:
        return None
    text = (
        "WARNING: with {workers} workers and --microbatch {rows} the batch of {batch} rows keeps {busy} of them busy; "
        "give a smaller --microbatch, or a larger --batch-size"
    )
    about = {"batch": config.batch_size, "rows": config.microbatch, "busy": config.microbatches, "workers": workers}
    return Line("idle-workers", text, level=WARNING, **about)


def _line(config: RunConfig, event: str, template: str, columns: npt.NDArray[np.intp], **fields: object) -> Line:
    names = [variable.name for variable in config.model.variables for _ in range(variable.features)]
    named = ", ".join(names[column] if names else str(column) for column in columns[:_NAMED])
    text = f"column {named}" if columns.size == 1 else f"columns {named}"
    if columns.size > _NAMED:
        text = f"{columns.size} columns ({named}, ...)"
    return Line(event, template, level=WARNING, begins=_ADVICE, columns=text, **fields)
