"""Likelihoods p(x|z): one file each, or for those that share their mathematics, and the table of them. A further one is
a file and a line here."""

from collections.abc import Callable, Sequence

from ps_vae.errors import UsageError
from ps_vae.nn.likelihoods.bernoulli import bernoulli
from ps_vae.nn.likelihoods.continuous_bernoulli import continuous_bernoulli
from ps_vae.nn.likelihoods.gaussian import gaussian
from ps_vae.nn.likelihoods.gaussian_decoder import gaussian_decoder
from ps_vae.nn.likelihoods.gaussian_learned import gaussian_feature, gaussian_shared
from ps_vae.nn.likelihoods.likelihood import Initial, Likelihood, Own
from ps_vae.nn.likelihoods.logistic import logistic
from ps_vae.nn.likelihoods.mixed import Variable, mixed
from ps_vae.nn.likelihoods.negative_binomial import negative_binomial
from ps_vae.nn.likelihoods.poisson import poisson
from ps_vae.nn.likelihoods.softmax import categorical, multinomial

__all__ = ["LIKELIHOODS", "Initial", "Likelihood", "Own", "Variable", "likelihood", "mixed_likelihood"]

LIKELIHOODS: dict[str, Callable[[int, float], Likelihood]] = {
    "bernoulli": lambda features, sigma: bernoulli(features),
    "continuous-bernoulli": lambda features, sigma: continuous_bernoulli(features),
    "gaussian": gaussian,
    "gaussian-shared": lambda features, sigma: gaussian_shared(features),
    "gaussian-feature": lambda features, sigma: gaussian_feature(features),
    "gaussian-decoder": lambda features, sigma: gaussian_decoder(features),
    "logistic": lambda features, sigma: logistic(features),
    "categorical": lambda features, sigma: categorical(features),
    "multinomial": lambda features, sigma: multinomial(features),
    "poisson": lambda features, sigma: poisson(features),
    "negative-binomial": lambda features, sigma: negative_binomial(features),
}


def likelihood(name: str, features: int, sigma: float = 1.0) -> Likelihood:
    """The likelihood of that name of so many features; sigma is for those that have a fixed one. Raises UsageError for
    an unknown name."""
    if name not in LIKELIHOODS:
        raise UsageError(f"likelihood {name!r} is not known: use {', '.join(LIKELIHOODS)}")
    return LIKELIHOODS[name](features, sigma)


def mixed_likelihood(variables: Sequence[Variable], sigma: float = 1.0) -> Likelihood:
    """The likelihood of a table's variables, each with its own. Raises UsageError for one that is not known."""
    return mixed(variables, lambda name, features: likelihood(name, features, sigma))
