"""A run's data: read as its words for columns and labels say."""

import csv

from ps_vae.data import BIT, NUMBER, OTHERS, VALUES, Dataset, load
from ps_vae.errors import UsageError
from ps_vae.nn.likelihoods import LIKELIHOODS, Variable
from ps_vae.train.config import UNCONDITIONED, RunConfig

__all__ = ["data_of", "load_as", "variables_of"]

# How a column has to be read for its likelihood; as numbers for all others.
_NONE = "none"
_CODINGS = {"bernoulli": BIT, "categorical": VALUES}


def data_of(config: RunConfig, place: str | None = None) -> Dataset:
    """The data of a run, from where it says or another place. Raises what `ps_vae.data.load` does."""
    return load_as(place or config.data, config.split, config.model.likelihood, config.condition)


def load_as(spec: str, split: str, likelihood: str, condition: str) -> Dataset:
    """Data for a likelihood, of all features or with words for each column, and for a condition, perhaps "none".

    Raises UsageError for words that cannot be, and what `ps_vae.data.load` does.
    """
    words = _by_column(likelihood)
    wanted = {name: None if kind == _NONE else _CODINGS.get(kind, NUMBER) for name, kind in words.items()}
    if wanted.get(condition) is not None:
        raise UsageError(f"--condition {condition}: --likelihood models this column; leave it out of one of the two")
    return load(spec, split, wanted=wanted or None, condition="" if condition == UNCONDITIONED else condition)


def variables_of(likelihood: str, data: Dataset) -> tuple[Variable, ...]:
    """What the words for columns mean for the data that were read by them; () where there are none."""
    words = _by_column(likelihood)
    return tuple(
        Variable(column.name, words.get(column.name, words.get(OTHERS, "")), column.features, column.misses)
        for column in data.variables
    )


def _by_column(words: str) -> dict[str, str]:
    """Of `name:likelihood,name:likelihood`, or {} where they name a likelihood for all features.

    Quotes are those of CSV: `"rate, net":likelihood`. Names may be empty, and have colons.
    """
    if ":" not in words:
        return {}
    found: dict[str, str] = {}
    for word in _separated(words):
        name, colon, kind = (part.strip() for part in word.rpartition(":"))
        if not colon or kind not in (*LIKELIHOODS, _NONE):
            known = ", ".join((*LIKELIHOODS, f"{_NONE} (left out)"))
            raise UsageError(
                f"--likelihood {words}: {word.strip()!r} is not COLUMN:LIKELIHOOD; write column names (in double "
                f"quotes if there are commas in them), or {OTHERS} for all others, each with one of {known}"
            )
        if name in found:
            raise UsageError(f"--likelihood {words}: {name!r} is there twice; name each column once")
        found[name] = kind
    return found


def _separated(words: str) -> list[str]:
    try:
        return next(csv.reader([words], skipinitialspace=True))
    except csv.Error as error:
        raise UsageError(
            f"--likelihood {words}: {error}; write COLUMN:LIKELIHOOD, with a comma between two of them, and names with "
            "commas, quotes or line breaks in double quotes"
        ) from None
