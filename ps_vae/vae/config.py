"""What a model is: sizes and names, checked once, here."""

from dataclasses import dataclass

from ps_vae.errors import UsageError
from ps_vae.nn.activations import ACTIVATIONS
from ps_vae.nn.likelihoods import LIKELIHOODS, Likelihood, Variable, likelihood, mixed_likelihood
from ps_vae.vae.priors import Prior, prior

__all__ = ["ModelConfig", "family_of", "prior_of"]

# Of which float32 holds the square and what one is divided by it.
_LEAST_SIGMA, _MOST_SIGMA = 1e-15, 1e15


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A variational autoencoder with dense layers.

    inputs      features of an example
    hidden      widths of the encoder's hidden layers, any sequence, kept as a tuple; the decoder has the same in
                reverse; () is a linear model
    latent      dimensions of z
    activation  after each hidden layer, a name in ACTIVATIONS
    likelihood  p(x|z), a name in LIKELIHOODS, or words that give one to each column of a table
    sigma       standard deviation of the gaussian likelihood, in the unit of the data, or of a table's columns in their
                deviations
    prior       p(z), a name in PRIORS
    variables   what the words mean for the columns that there are, where they are words for columns
    classes     that the model is conditioned on; 0: it is not

    Raises UsageError for what cannot be.
    """

    inputs: int
    hidden: tuple[int, ...] = (400,)
    latent: int = 20
    activation: str = "relu"
    likelihood: str = "bernoulli"
    sigma: float = 1.0
    prior: str = "normal"
    variables: tuple[Variable, ...] = ()
    classes: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "variables", tuple(Variable(*variable) for variable in self.variables))
        if self.inputs < 1:
            raise UsageError(f"{self.inputs} inputs: an example has at least one feature")
        if self.latent < 1:
            raise UsageError(f"{self.latent} latent dimensions: give at least one")
        if any(width < 1 for width in self.hidden):
            raise UsageError(f"hidden widths {', '.join(map(str, self.hidden))}: each has to be at least one")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation {self.activation!r} is not known: use {', '.join(ACTIVATIONS)}")
        if not self.variables and self.likelihood not in LIKELIHOODS:
            raise UsageError(f"likelihood {self.likelihood!r} is not known: use {', '.join(LIKELIHOODS)}")
        if any(variable.features < 1 for variable in self.variables):
            raise UsageError(f"variables {self.variables}: each has at least one feature")
        features = sum(variable.features for variable in self.variables)
        if self.variables and features != self.inputs:
            raise UsageError(f"variables of {features} features for {self.inputs} inputs")
        if self.classes < 0:
            raise UsageError(f"{self.classes} classes: give 0 for none, or how many")
        if not _LEAST_SIGMA <= self.sigma <= _MOST_SIGMA:
            raise UsageError(f"sigma {self.sigma}: give a number from {_LEAST_SIGMA:g} to {_MOST_SIGMA:g}")
        family_of(self)
        prior_of(self)

    @property
    def width(self) -> int:
        """Numbers in a row: its features, and one for each class."""
        return self.inputs + self.classes


def family_of(config: ModelConfig) -> Likelihood:
    """The model's p(x|z)."""
    if config.variables:
        return mixed_likelihood(config.variables, config.sigma)
    return likelihood(config.likelihood, config.inputs, config.sigma)


def prior_of(config: ModelConfig) -> Prior:
    """The model's p(z)."""
    return prior(config.prior, config.width, config.latent)
