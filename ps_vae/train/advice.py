"""What a user should know of data that a model will make little of: scales, and columns that never change; and of
workers that have nothing to do."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ps_vae.data import Moments
from ps_vae.lines import WARNING, Line
from ps_vae.nn.likelihoods.gaussian_learned import varies
from ps_vae.ps.consistency import parse_consistency
from ps_vae.train.config import RunConfig

__all__ = ["ADVICE", "advice", "idle_workers"]

ADVICE = "WARNING: the data"
"""How every line of advice begins."""

# Root mean square of a feature from which an encoder's first layer is far from where it can learn.
_FAR = 100.0
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
    means, deviations = moments.means, np.sqrt(np.maximum(moments.variances, 0))
    likelihood = config.model.likelihood
    size = np.hypot(means, deviations)
    # Of a table with a likelihood for each column the encoder sees deviations from the means.
    if likelihood not in _COUNTS and not config.model.variables and (far := np.flatnonzero(size > _FAR)).size:
        text = "{begins} have values of about {size:.3g} in {columns}; the encoder learns little from them: {hint}"
        yield _line(config, "large-values", text, far, size=float(size.max()), hint=_SCALE)
    changes = varies(means, moments.variances)
    if likelihood in _SHARED and changes.any():
        usual = float(np.median(deviations[changes]))
        if (wide := np.flatnonzero(deviations > _APART * usual)).size:
            text = (
                "{begins} have deviations of about {usual:.3g}, but up to {most:.3g} in {columns}, and one sigma is "
                "for all of them: the largest decide; {hint}, or take gaussian-feature"
            )
            yield _line(config, "unlike-scales", text, wide, usual=usual, most=float(deviations.max()), hint=_SCALE)
    has_own = np.full(means.size, likelihood in _OWN)
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
    return Line(event, template, level=WARNING, begins=ADVICE, columns=text, **fields)
