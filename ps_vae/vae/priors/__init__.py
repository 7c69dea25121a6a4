"""Priors p(z): one file for those that share their mathematics, and the table of them. A further one is a line here."""

from collections.abc import Callable

from ps_vae.errors import UsageError
from ps_vae.vae.priors.mixtures import mixture, vamp
from ps_vae.vae.priors.prior import Prior, PriorTerms
from ps_vae.vae.priors.standard import normal, uniform

__all__ = ["PRIORS", "Prior", "PriorTerms", "prior"]

_COUNTED = ":K"
_MOST = 1 << 16

PRIORS: dict[str, Callable[..., Prior]] = {
    "normal": normal,
    "uniform": uniform,
    "mixture:K": mixture,
    "vamp:K": vamp,
}


def prior(name: str, inputs: int, latent: int) -> Prior:
    """The prior of that name for a model of so many inputs and latent dimensions.

    Raises UsageError for a name that is none, and for a count that is missing or impossible.
    """
    kind, colon, count = name.partition(":")
    if not colon and kind in PRIORS:
        return PRIORS[kind](inputs, latent)
    make = PRIORS.get(kind + _COUNTED)
    is_count = count.isascii() and count.isdecimal() and len(count) <= len(str(_MOST)) and 1 <= int(count) <= _MOST
    if make is None or not is_count:
        raise UsageError(
            f"prior {name!r} is not known: use {', '.join(PRIORS)}, K being a number of components from 1 to {_MOST:,}"
        )
    return make(inputs, latent, int(count))
