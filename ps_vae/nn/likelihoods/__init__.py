"""Likelihoods p(x|z): one file each, and the table of them. A further one is a file and a line here."""

from collections.abc import Callable

from ps_vae.errors import UsageError
from ps_vae.nn.likelihoods.bernoulli import bernoulli
from ps_vae.nn.likelihoods.gaussian import gaussian
from ps_vae.nn.likelihoods.likelihood import Likelihood

__all__ = ["LIKELIHOODS", "Likelihood", "likelihood"]

LIKELIHOODS: dict[str, Callable[[float], Likelihood]] = {
    "bernoulli": lambda sigma: bernoulli(),
    "gaussian": gaussian,
}


def likelihood(name: str, sigma: float = 1.0) -> Likelihood:
    """The likelihood of that name; sigma is for those that have one. Raises UsageError for an unknown name."""
    if name not in LIKELIHOODS:
        raise UsageError(f"likelihood {name!r} is not known: use {', '.join(LIKELIHOODS)}")
    return LIKELIHOODS[name](sigma)
