"""Bounds of log p(x) that are trained, and how their gradients are estimated.

    elbo      E log p(x|z) - beta KL(q || p), one sample; elbo:K the mean over K samples
    iwae:K    log 1/K sum_k w_k                               Burda et al. (2016)
    stl       the ELBO by its path derivative; stl:K          Roeder et al. (2017): no variance where q is exact
    dreg:K    the IWAE's bound by its path derivative         Tucker et al. (2019)

`ps_vae.nn.importance` has the formulas.
"""

from typing import NamedTuple

from ps_vae.errors import UsageError

__all__ = ["BOUNDS", "ELBO", "Bound", "Objective", "bound"]

_MOST = 10_000


class Bound(NamedTuple):
    """A bound and its estimator.

    samples   K
    weighs    whether samples count by their importance, or each 1/K
    is_path   whether the encoder learns by the path derivative
    """

    samples: int
    weighs: bool
    is_path: bool


ELBO = Bound(1, weighs=False, is_path=False)

BOUNDS: dict[str, Bound] = {
    "elbo": ELBO,
    "iwae": Bound(1, weighs=True, is_path=False),
    "stl": Bound(1, weighs=False, is_path=True),
    "dreg": Bound(1, weighs=True, is_path=True),
}


class Objective(NamedTuple):
    """What a step minimises: minus the bound, with a penalty on the divergence.

    beta       weight of the divergence, and of log p(z) - log q(z|x) in importance weights
    free_bits  nats of each latent dimension's divergence that cost nothing, in each example; 0: none
    capacity   nats that the divergence of an example is drawn to, from either side; 0: to none
    """

    bound: Bound = ELBO
    beta: float = 1.0
    free_bits: float = 0.0
    capacity: float = 0.0


def bound(name: str) -> Bound:
    """The bound of that name, such as elbo or iwae:50. Raises UsageError for one that is not known."""
    kind, colon, count = name.partition(":")
    known = BOUNDS.get(kind)
    is_count = count.isascii() and count.isdecimal() and len(count) <= len(str(_MOST)) and 1 <= int(count) <= _MOST
    if known is None or (colon and not is_count) or (not colon and known.weighs):
        raise UsageError(
            f"bound {name!r} is not known: use elbo, elbo:K, iwae:K, stl, stl:K or dreg:K, K being a number of samples "
            f"from 1 to {_MOST:,}"
        )
    return known._replace(samples=int(count) if colon else 1)
